//! The list of statements, from which the tests are made.

use super::dispatcher::{
    long, merging, owned, registration, results, sharing, staging, statistics, tickets, working,
};
use super::queue::{accepting, lifetime, reaping, starting, transfers, wakers, waking};
use super::{Skipped, Subject, model, run};

/// Makes a public function for each statement, and the macro that makes a test of each.
///
/// `$d` is a dollar sign, which a macro that makes a macro cannot write itself.
macro_rules! statements {
    ($d:tt $( $how:ident $module:ident { $( $name:ident )* } )*) => {
        /// The statements, each as it is run.
        pub mod statement {
            use super::*;

            $($(
                #[doc(hidden)]
                pub fn $name(test: &str, make: impl FnOnce() -> Result<Subject, Skipped>) {
                    run::$how(test, make, $module::$name);
                }
            )*)*
        }

        /// Makes a module with one test for each statement about a backend.
        ///
        /// The expression makes a fresh [`Subject`](crate::conformance::Subject), or says why there
        /// can be none here: it is a `FnOnce() -> Result<Subject, Skipped>`. See
        /// [`conformance`](crate::conformance) for an example.
        #[macro_export]
        macro_rules! conformance_suite {
            ($d suite:ident, $d make:expr $d(,)?) => {
                mod $d suite {
                    #[allow(unused_imports, reason = "the expression may need what is around it")]
                    use super::*;

                    $($(
                        #[test]
                        fn $name() {
                            let test = concat!(module_path!(), "::", stringify!($name));
                            $crate::conformance::statement::$name(test, $d make);
                        }
                    )*)*
                }
            };
        }
    };
}

statements! { $
    borrowing accepting {
        every_accepted_op_completes_once_and_comes_back_as_itself
        a_queue_accepts_from_the_front_until_it_is_full
        a_reaped_op_leaves_its_place_to_the_next
        a_batch_larger_than_the_queue_can_be_pumped_to_its_end
        a_queue_of_depth_one_works
        submitting_nothing_changes_nothing
        in_flight_counts_what_was_accepted_and_not_reaped
        ops_of_all_kinds_share_a_queue
    }
    borrowing reaping {
        reaping_returns_at_least_as_many_as_asked_for
        reaping_one_at_a_time_reaches_the_end
        reaping_more_than_is_in_flight_ends_with_the_last
        reaping_with_nothing_in_flight_returns_at_once
        reaping_none_starts_what_was_accepted
        a_deadline_in_the_past_loses_nothing
        a_deadline_in_the_past_starts_what_was_accepted
        a_deadline_far_away_does_not_delay_completions
        reaping_appends_to_what_was_reaped_before
    }
    borrowing starting {
        starting_takes_no_completions
        a_queue_that_is_topped_up_reaches_its_end
        what_was_started_wakes_its_user
        dropping_a_queue_completes_what_was_started
    }
    borrowing transfers {
        a_read_returns_what_was_written
        a_write_touches_nothing_but_its_range
        a_transfer_may_have_several_segments
        a_transfer_may_have_more_segments_than_one_system_call_takes
        a_transfer_may_be_longer_than_the_device_takes_at_once
        the_last_block_can_be_written_and_read
        many_transfers_at_once_do_not_mix_their_bytes
        a_flush_completes
        two_queues_see_each_others_completed_writes
        zeroes_are_written_where_asked_and_nowhere_else
        a_discard_leaves_its_neighbours_alone
    }
    borrowing lifetime {
        dropping_a_queue_completes_what_it_accepted
        dropping_a_queue_completes_what_it_started
        dropping_a_queue_completes_what_it_reaped_in_part
        dropping_an_idle_queue_is_nothing
        a_queue_can_be_moved_to_another_thread
        ops_survive_the_thread_that_started_them
        a_queue_of_one_thread_does_nothing_on_another
        queues_work_side_by_side_on_several_threads
    }
    owning lifetime {
        a_queue_outlives_its_backend
    }
    borrowing waking {
        a_queue_can_be_driven_by_its_event_fd
        an_event_fd_falls_silent_when_all_is_reaped
    }
    alone waking {
        an_idle_queue_uses_no_cpu
    }
    borrowing wakers {
        a_wake_shortens_one_reap_at_most
        a_wake_with_nothing_in_flight_loses_nothing
        a_queue_that_is_woken_each_time_reaches_its_end
        wakes_of_other_threads_lose_no_completion
        a_woken_queue_completes_its_ops_when_it_is_dropped
        a_waker_outlives_its_queue
    }
    alone wakers {
        an_idle_queue_that_is_woken_uses_no_cpu
    }
    borrowing results {
        the_geometry_can_be_worked_with
        each_write_of_a_batch_has_its_own_result
        each_read_of_a_batch_has_its_own_result
        options_of_a_write_are_obeyed_or_refused
        a_payload_longer_than_its_total_length_is_refused
        an_error_says_what_where_and_on_which_device
        an_empty_batch_has_no_results
        overlapping_writes_are_refused_but_for_one
        overlapping_reads_are_served
        a_flush_follows_writes
        erasing_obeys_the_rules_of_a_transfer
        ranges_of_one_unit_of_alignment_are_served
    }
    borrowing staging {
        aligned_transfers_are_not_copied
        a_padded_write_is_padded_with_zeroes_and_copies_only_its_tail
        a_padded_read_leaves_the_bytes_after_its_payload_alone
        a_transfer_may_be_padding_alone
        a_transfer_without_segments_is_padding_alone
        memory_at_any_address_serves
        memory_that_cannot_be_pinned_serves
        several_segments_of_any_length_make_one_transfer
        lists_of_segments_of_any_number_are_written
        a_list_of_too_many_segments_is_refused
        can_batch_says_whether_anything_is_copied_or_refused
        a_batch_that_needs_much_aligned_memory_is_done_in_parts
    }
    borrowing merging {
        neighbours_share_an_op
        transfers_apart_share_nothing
        neighbours_with_padding_share_an_op
        a_refused_transfer_parts_its_neighbours
        a_batch_of_100_000_transfers_is_done
    }
    borrowing long {
        a_long_ticket_completes_without_calls
        a_long_batch_hands_its_first_reads_over_first
    }
    borrowing working {
        work_is_called_once_whatever_becomes_of_its_batch
        a_batch_is_written_while_its_caller_works
        work_during_writes_may_call_the_dispatcher
        a_panic_of_work_leaves_no_write_in_flight
    }
    borrowing sharing {
        threads_share_a_dispatcher
        more_threads_than_queues_take_turns
        two_dispatchers_share_a_backend
        two_dispatchers_share_flushes
        two_dispatchers_share_stopped_writes
        a_read_in_parts_may_call_the_dispatcher
        threads_that_end_leave_their_queues_to_others
        blocking_calls_work_while_tickets_are_out
        a_ticket_outlives_its_dispatcher
    }
    borrowing tickets {
        waiting_for_a_ticket_gives_buffers_and_results
        trying_often_enough_finishes_a_ticket
        waiting_until_a_deadline_keeps_the_ticket
        one_descriptor_wakes_for_any_ticket
        dropping_a_ticket_finishes_its_batch
        forgetting_a_ticket_finishes_its_batch
        any_number_of_tickets_share_a_queue
        a_ticket_can_be_waited_for_on_another_thread
        tickets_are_numbered
        each_transfer_of_a_ticket_has_its_own_result
    }
    borrowing owned {
        memory_of_any_kind_is_written_and_read_and_comes_back
        segments_of_several_kinds_are_one_transfer
        a_payload_may_end_inside_any_segment
        a_payload_longer_than_its_memory_is_refused
        a_read_into_read_only_memory_is_refused
        owned_memory_is_copied_only_where_it_is_unaligned
    }
    borrowing statistics {
        batches_transfers_and_bytes_add_up
        errors_are_counted_by_kind
        latencies_and_depth_are_within_what_is_possible
    }
    borrowing registration {
        registered_memory_and_other_memory_serve_alike
        a_buffer_of_a_registered_pool_comes_back_from_a_ticket
        memory_serves_when_its_registration_has_ended
        a_registration_of_leased_memory_may_end_at_any_time
    }
    random model {
        any_batches_do_on_the_device_what_they_do_to_an_array
    }
}
