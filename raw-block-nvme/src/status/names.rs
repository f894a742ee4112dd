//! The status values and their names in the specification.

use super::Advice;
use Advice::{Command, Device, Medium, Path, Refused, Retry};

/// The name and the advice of a status, if it is in the specification.
pub(super) fn find(code_type: u8, code: u8) -> Option<(&'static str, Advice)> {
    let table = match code_type {
        0 => GENERIC,
        1 => COMMAND_SPECIFIC,
        2 => MEDIA,
        3 => PATH,
        _ => return None,
    };
    let found = table.binary_search_by_key(&code, |&(code, ..)| code).ok()?;
    let (_, name, advice) = table[found];
    Some((name, advice))
}

/// A status code, its name, and the advice for the caller.
type Row = (u8, &'static str, Advice);

/// NVM Express Base Specification 2.1, "Generic Command Status Values", and those of the NVM
/// Command Set.
const GENERIC: &[Row] = &[
    (0x00, "Successful Completion", Command),
    (0x01, "Invalid Command Opcode", Command),
    (0x02, "Invalid Field in Command", Command),
    (0x03, "Command ID Conflict", Retry),
    (0x04, "Data Transfer Error", Retry),
    (0x05, "Commands Aborted due to Power Loss Notification", Retry),
    (0x06, "Internal Error", Retry),
    (0x07, "Command Abort Requested", Retry),
    (0x08, "Command Aborted due to SQ Deletion", Retry),
    (0x09, "Command Aborted due to Failed Fused Command", Command),
    (0x0A, "Command Aborted due to Missing Fused Command", Command),
    (0x0B, "Invalid Namespace or Format", Device),
    (0x0C, "Command Sequence Error", Command),
    (0x0D, "Invalid SGL Segment Descriptor", Command),
    (0x0E, "Invalid Number of SGL Descriptors", Command),
    (0x0F, "Data SGL Length Invalid", Command),
    (0x10, "Metadata SGL Length Invalid", Command),
    (0x11, "SGL Descriptor Type Invalid", Command),
    (0x12, "Invalid Use of Controller Memory Buffer", Command),
    (0x13, "PRP Offset Invalid", Command),
    (0x14, "Atomic Write Unit Exceeded", Command),
    (0x15, "Operation Denied", Refused),
    (0x16, "SGL Offset Invalid", Command),
    (0x18, "Host Identifier Inconsistent Format", Command),
    (0x19, "Keep Alive Timer Expired", Path),
    (0x1A, "Keep Alive Timeout Invalid", Command),
    (0x1B, "Command Aborted due to Preempt and Abort", Refused),
    (0x1C, "Sanitize Failed", Device),
    (0x1D, "Sanitize In Progress", Device),
    (0x1E, "SGL Data Block Granularity Invalid", Command),
    (0x1F, "Command Not Supported for Queue in CMB", Command),
    (0x20, "Namespace is Write Protected", Refused),
    (0x21, "Command Interrupted", Retry),
    (0x22, "Transient Transport Error", Retry),
    (0x23, "Command Prohibited by Command and Feature Lockdown", Refused),
    (0x24, "Admin Command Media Not Ready", Retry),
    (0x25, "Invalid Key Tag", Refused),
    (0x26, "Host Dispersed Namespace Support Not Enabled", Command),
    (0x27, "Host Identifier Not Initialized", Command),
    (0x28, "Incorrect Key", Refused),
    (0x29, "FDP Disabled", Command),
    (0x2A, "Invalid Placement Handle List", Command),
    (0x80, "LBA Out of Range", Command),
    (0x81, "Capacity Exceeded", Device),
    (0x82, "Namespace Not Ready", Retry),
    (0x83, "Reservation Conflict", Refused),
    (0x84, "Format In Progress", Device),
];

/// "Command Specific Status Values": 00h to 7Fh for any command set, from 80h on those of the NVM
/// Command Set and, from B8h on, of zoned namespaces.
const COMMAND_SPECIFIC: &[Row] = &[
    (0x00, "Completion Queue Invalid", Command),
    (0x01, "Invalid Queue Identifier", Command),
    (0x02, "Invalid Queue Size", Command),
    (0x03, "Abort Command Limit Exceeded", Command),
    (0x05, "Asynchronous Event Request Limit Exceeded", Command),
    (0x06, "Invalid Firmware Slot", Command),
    (0x07, "Invalid Firmware Image", Command),
    (0x08, "Invalid Interrupt Vector", Command),
    (0x09, "Invalid Log Page", Command),
    (0x0A, "Invalid Format", Command),
    (0x0B, "Firmware Activation Requires Conventional Reset", Device),
    (0x0C, "Invalid Queue Deletion", Command),
    (0x0D, "Feature Identifier Not Saveable", Command),
    (0x0E, "Feature Not Changeable", Command),
    (0x0F, "Feature Not Namespace Specific", Command),
    (0x10, "Firmware Activation Requires NVM Subsystem Reset", Device),
    (0x11, "Firmware Activation Requires Controller Level Reset", Device),
    (0x12, "Firmware Activation Requires Maximum Time Violation", Device),
    (0x13, "Firmware Activation Prohibited", Refused),
    (0x14, "Overlapping Range", Command),
    (0x15, "Namespace Insufficient Capacity", Device),
    (0x16, "Namespace Identifier Unavailable", Device),
    (0x18, "Namespace Already Attached", Command),
    (0x19, "Namespace Is Private", Refused),
    (0x1A, "Namespace Not Attached", Device),
    (0x1B, "Thin Provisioning Not Supported", Command),
    (0x1C, "Controller List Invalid", Command),
    (0x1D, "Device Self-test In Progress", Refused),
    (0x1E, "Boot Partition Write Prohibited", Refused),
    (0x1F, "Invalid Controller Identifier", Command),
    (0x20, "Invalid Secondary Controller State", Command),
    (0x21, "Invalid Number of Controller Resources", Command),
    (0x22, "Invalid Resource Identifier", Command),
    (0x23, "Sanitize Prohibited While Persistent Memory Region is Enabled", Refused),
    (0x24, "ANA Group Identifier Invalid", Command),
    (0x25, "ANA Attach Failed", Device),
    (0x26, "Insufficient Capacity", Device),
    (0x27, "Namespace Attachment Limit Exceeded", Command),
    (0x28, "Prohibition of Command Execution Not Supported", Command),
    (0x29, "I/O Command Set Not Supported", Command),
    (0x2A, "I/O Command Set Not Enabled", Command),
    (0x2B, "I/O Command Set Combination Rejected", Command),
    (0x2C, "Invalid I/O Command Set", Command),
    (0x2D, "Identifier Unavailable", Device),
    (0x80, "Conflicting Attributes", Command),
    (0x81, "Invalid Protection Information", Command),
    (0x82, "Attempted Write to Read Only Range", Refused),
    (0x83, "Command Size Limit Exceeded", Command),
    (0xB8, "Zoned Boundary Error", Command),
    (0xB9, "Zone Is Full", Command),
    (0xBA, "Zone Is Read Only", Refused),
    (0xBB, "Zone Is Offline", Device),
    (0xBC, "Zone Invalid Write", Command),
    (0xBD, "Too Many Active Zones", Command),
    (0xBE, "Too Many Open Zones", Command),
    (0xBF, "Invalid Zone State Transition", Command),
];

/// "Media and Data Integrity Error Values".
const MEDIA: &[Row] = &[
    (0x80, "Write Fault", Medium),
    (0x81, "Unrecovered Read Error", Medium),
    (0x82, "End-to-end Guard Check Error", Medium),
    (0x83, "End-to-end Application Tag Check Error", Medium),
    (0x84, "End-to-end Reference Tag Check Error", Medium),
    (0x85, "Compare Failure", Command),
    (0x86, "Access Denied", Refused),
    (0x87, "Deallocated or Unwritten Logical Block", Medium),
    (0x88, "End-to-End Storage Tag Check Error", Medium),
];

/// "Path Related Status Values"; the driver of the host also reports 70h and 71h.
const PATH: &[Row] = &[
    (0x00, "Internal Path Error", Path),
    (0x01, "Asymmetric Access Persistent Loss", Device),
    (0x02, "Asymmetric Access Inaccessible", Path),
    (0x03, "Asymmetric Access Transition", Path),
    (0x60, "Controller Pathing Error", Path),
    (0x70, "Host Pathing Error", Path),
    (0x71, "Command Aborted By Host", Path),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_table_is_in_the_order_that_the_search_takes_for_granted() {
        for table in [GENERIC, COMMAND_SPECIFIC, MEDIA, PATH] {
            assert!(table.is_sorted_by(|a, b| a.0 < b.0));
        }
    }
}
