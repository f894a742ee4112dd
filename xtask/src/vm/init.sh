#!/bin/busybox sh
# The first process of the guest. It runs every test program, and reports to the host in lines that
# begin with @vm, on the port that is the standard output. Variables in capitals come from the
# kernel's command line.

/bin/busybox mkdir -p /bin /sbin /proc /sys /dev /tmp
/bin/busybox --install -s /bin
export PATH=/bin TMPDIR=/tmp RAW_BLOCK_VM=1 RUST_BACKTRACE=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
# Earlier errors are on the console.
exec </dev/null >/dev/vport0p1 2>&1

report() { printf '\n@vm %s\n' "$*"; }

# The host waits for the empty line before this one.
report "kernel $(uname -r)"
# The kernel has booted with one.
echo 1 >/sys/devices/system/cpu/cpu1/online || report "trouble there is no second processor"

while read -r module; do
    insmod "/modules/$module" || report "trouble the module $module cannot be loaded"
done </modules/order

# The kernel's own target exports the namespace of the controller "exported", and this guest
# connects to it over TCP.
connect_over_tcp() {
    nqn=nqn.2025-01.example.raw-block:over-tcp
    exported=
    for namespace in /sys/block/nvme*; do
        # The paths of a multipath namespace are hidden, and have no device node.
        [ "$(cat "$namespace/hidden")" = 0 ] || continue
        [ "$(tr -d ' ' <"$namespace/device/serial")" = exported ] && exported=/dev/${namespace##*/}
    done
    # Not every guest has it.
    [ -n "$exported" ] || return 0
    mount -t configfs configfs /sys/kernel/config || return
    ip link set lo up || return
    subsystem=/sys/kernel/config/nvmet/subsystems/$nqn
    port=/sys/kernel/config/nvmet/ports/1
    mkdir -p "$subsystem/namespaces/1" "$port" || return
    echo 1 >"$subsystem/attr_allow_any_host" || return
    echo over-tcp >"$subsystem/attr_serial" || return
    echo "$exported" >"$subsystem/namespaces/1/device_path" || return
    echo 1 >"$subsystem/namespaces/1/enable" || return
    echo tcp >"$port/addr_trtype" || return
    echo ipv4 >"$port/addr_adrfam" || return
    echo 127.0.0.1 >"$port/addr_traddr" || return
    echo 4420 >"$port/addr_trsvcid" || return
    ln -s "$subsystem" "$port/subsystems/" || return
    echo "transport=tcp,traddr=127.0.0.1,trsvcid=4420,nqn=$nqn" >/dev/nvme-fabrics || return
}
connect_over_tcp || report "trouble there is no namespace over TCP"

for program in /tests/*; do
    report "begins ${program##*/}"
    # The arguments are words.
    # shellcheck disable=SC2086
    timeout -s KILL "$RAW_BLOCK_VM_PATIENCE" "$program" --test-threads=1 $RAW_BLOCK_VM_ARGUMENTS
    report "ended $?"
    # A process that it left may have a device open.
    kill -KILL -1
done
report done
poweroff -f
