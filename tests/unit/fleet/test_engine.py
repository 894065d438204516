"""What the engine decides without a store."""

from techrevati.fleet.engine import opening_messages


def test_an_input_is_read_as_the_messages_that_open_the_run() -> None:
    assert opening_messages('"hello"') == [{"role": "user", "content": "hello"}]
    assert opening_messages('{"messages":[{"role":"system","content":"be kind"}]}') == [
        {"role": "system", "content": "be kind"}
    ]
    assert opening_messages("null") == []
    assert opening_messages('{"topic":"tides"}') == [{"role": "user", "content": '{"topic":"tides"}'}]
