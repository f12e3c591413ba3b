"""What holds without workers holds with two: the same tests, with the sockets beyond a link."""

import pytest
import trio

from tests.integration import (
    test_bounds,
    test_client_streams,
    test_devices,
    test_gateway,
    test_jsonrpc,
    test_presence,
    test_reactor,
    test_transports,
)
from tests.workers import open_process_here

SAME = (
    test_gateway.test_two_users_talk_and_are_acknowledged_in_order,
    test_gateway.test_a_burst_in_a_group_reaches_every_member_in_order_whatever_its_transport,
    test_gateway.test_a_wrong_token_is_answered_at_once,
    test_gateway.test_a_second_master_kicks_the_first_which_is_told_and_closed,
    test_gateway.test_every_version_of_both_families_is_served,
    test_gateway.test_what_is_not_to_be_kept_has_seq_0,
    test_gateway.test_refused_sends_have_their_reason_and_the_connection_goes_on,
    test_gateway.test_a_delivery_without_ack_is_repeated_byte_for_byte_and_then_left,
    test_gateway.test_a_silent_connection_is_closed_and_a_pinging_one_is_not,
    test_gateway.test_silence_before_connect_is_closed,
    test_gateway.test_malformed_input_ends_that_connection_only,
    test_gateway.test_a_half_closed_connection_ends,
    test_gateway.test_a_subscriber_of_a_data_channel_gets_what_is_sent_and_nothing_is_stored,
    test_gateway.test_a_graceful_stop_under_load_loses_nothing_acknowledged,
    test_gateway.test_an_event_reaches_a_client_that_knows_events_and_no_other,
    test_gateway.test_an_event_that_no_frame_holds_is_dropped_and_the_connection_goes_on,
    test_gateway.test_a_client_that_says_goodbye_is_told_apart_from_one_that_is_lost,
    test_gateway.test_a_command_that_a_device_confirms_leaves_the_queue,
    test_jsonrpc.test_json_and_binary_clients_talk_on_one_port,
    test_jsonrpc.test_a_refused_login_is_an_error_and_the_end,
    test_jsonrpc.test_a_kick_is_told_before_the_end_across_protocols,
    test_jsonrpc.test_bad_messages_are_answered_and_the_connection_goes_on,
    test_jsonrpc.test_a_batch_has_one_answer,
    test_jsonrpc.test_a_client_that_says_good_bye_is_let_go,
    test_jsonrpc.test_json_rpc_can_be_switched_off,
    test_transports.test_clients_talk_over_tls,
    test_transports.test_a_batch_of_messages_over_tls_keeps_its_order,
    test_transports.test_what_is_no_tls_ends_that_connection_only,
    test_transports.test_a_kicked_client_hears_the_good_bye_of_tls,
    test_transports.test_a_client_over_tls_that_does_not_read_is_dropped,
    test_transports.test_a_new_certificate_is_used_after_sighup_and_a_broken_one_is_not,
    test_transports.test_a_balancer_of_ours_names_the_client,
    test_transports.test_an_http_proxy_of_ours_names_the_client_in_its_request,
    test_transports.test_connections_are_counted_by_the_client_that_the_balancer_names,
    test_transports.test_one_connection_too_many_is_closed_and_the_place_is_free_again,
    test_transports.test_clients_talk_over_a_unix_socket,
    test_client_streams.test_a_json_client_names_the_stream_and_ends_it_with_its_header_bit,
    test_client_streams.test_a_json_client_writes_events,
    test_client_streams.test_a_binary_client_writes_events_and_each_is_answered,
    test_client_streams.test_a_stream_whose_writer_disconnects_is_closed_and_readers_are_told,
    test_client_streams.test_who_comes_midway_is_shown_what_there_is_and_then_gets_the_rest,
    test_presence.test_a_client_watches_another_come_and_go,
    test_presence.test_a_refusal_names_its_users_before_the_answer,
    test_reactor.test_who_says_good_bye_still_gets_the_answers_to_what_it_sent,
    test_reactor.test_who_says_good_bye_and_half_closes_gets_them_too,
    test_reactor.test_who_leaves_without_a_word_is_owed_nothing,
    test_reactor.test_a_client_that_leaves_during_its_login_is_never_online,
    test_reactor.test_a_full_queue_pauses_reading_and_nothing_is_lost,
    test_reactor.test_a_storm_of_connections_is_accepted_and_others_are_served_meanwhile,
    test_reactor.test_one_flood_does_not_keep_others_waiting,
    test_bounds.test_what_is_too_fast_is_refused_with_reason_22_and_the_rest_goes_on,
    test_bounds.test_what_comes_before_connect_is_bounded,
    test_bounds.test_reading_pauses_while_too_much_waits_for_the_store,
    test_devices.test_who_has_to_leave,
)
globals().update({each.__name__: each for each in SAME})


@pytest.fixture(autouse=True)
def with_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every server of these tests has two, which are tasks here: `test_workers` has them as processes."""
    monkeypatch.setattr(trio.lowlevel, "open_process", open_process_here)
    monkeypatch.setitem(test_gateway.DEFAULTS, "workers", 2)
