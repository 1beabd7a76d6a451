"""Calls are whole or without a trace, one after the other, whatever fails and whenever."""

import threading
import time

import pytest

from halfdome.host.driver.session import Session, whole
from tests.host.driver.fakes import Accelerator, Bus
from tests.host.interrupt import Interrupt, confined


class Platform:
    """A session with two cards."""

    def __init__(self):
        self.bus = Bus()
        self.session = Session(self.bus)
        self.cards = [Accelerator(0), Accelerator(1)]
        self.session.accelerators = list(self.cards)
        self.memory = self.cards[0].memories["dram"]

    def owned(self):
        return set(self.bus.mapped), [set(card.memories["dram"].owned) for card in self.cards]


@pytest.fixture
def platform():
    return Platform()


def take(platform, then=lambda: None):
    """A call that takes memory of host and cards, gives some back, and does something last."""

    def call():
        platform.session.unmap(platform.session.map(10))
        kept = platform.session.map(10)
        platform.memory.release(platform.memory.allocate(100))
        block = platform.memory.allocate(100)
        platform.cards[1].memories["dram"].allocate(64)
        then()
        return kept, block

    return platform.session.call(call)


def fail():
    raise LookupError("as expected")


def test_what_a_call_takes_stays_if_it_ends_well(platform):
    kept, block = take(platform)
    assert platform.bus.mapped == {kept}
    assert platform.memory.owns(block)
    assert take(platform)[1] is not block


def test_the_last_call_is_made_once_and_those_after_it_are_refused(platform):
    last = []
    for _ in range(2):
        platform.session.close(lambda: last.append(take(platform)))
    assert len(last) == 1
    for _ in range(2):  # and leave nothing that another would have to bring to an end
        with pytest.raises(RuntimeError, match="the platform is closed"):
            take(platform)
    assert not any("drop" in card.log for card in platform.cards)


def test_a_process_that_was_forked_off_is_refused_at_once(platform, monkeypatch):
    """It may have a copy of the lock that nobody gives back."""
    with platform.session._lock:
        with monkeypatch.context() as patched:
            patched.setattr("os.getpid", lambda: 1)
            with pytest.raises(RuntimeError, match="opened by another process; open one in each"):
                take(platform)
            platform.session.close(fail)
    take(platform)


@pytest.mark.parametrize("error", [LookupError, MemoryError, KeyboardInterrupt, SystemExit])
def test_what_a_call_takes_is_given_back_if_it_fails(platform, error):
    take(platform)
    before = platform.owned()

    def raising():
        raise error

    with pytest.raises(error):
        take(platform, raising)
    assert platform.owned() == before
    assert all(card.log[-1] == "drop" for card in platform.cards)


def test_what_a_failed_call_has_given_back_is_not_taken_again(platform):
    kept, block = take(platform)

    def release():
        platform.memory.release(block)
        platform.session.unmap(kept)
        fail()

    with pytest.raises(LookupError):
        take(platform, release)
    assert not platform.memory.owns(block)
    assert not platform.bus.mapped


def test_a_call_within_a_call_is_a_part_of_it(platform):
    with pytest.raises(LookupError):
        take(platform, lambda: (take(platform), fail()))
    assert platform.owned() == (set(), [set(), set()])

    def caught():
        with pytest.raises(LookupError):
            take(platform, fail)

    take(platform, caught)  # its own and what the inner one took
    assert [len(blocks) for blocks in platform.owned()[1]] == [2, 2]


def test_what_is_kept_midway_stays(platform):
    with pytest.raises(LookupError):
        take(platform, lambda: (platform.session.keep(), take(platform), fail()))
    assert [len(blocks) for blocks in platform.owned()[1]] == [1, 1]
    assert len(platform.bus.mapped) == 1


def test_cards_come_to_rest_before_their_memory_is_given_back(platform):
    busy, quiet = platform.cards
    busy.at_drain = lambda: seen.append(platform.owned())
    seen = []

    def start():
        busy.idle = False
        fail()

    with pytest.raises(LookupError):
        take(platform, start)
    assert len(seen) == 1
    assert [len(blocks) for blocks in seen[0][1]] == [1, 1]
    assert busy.log == ["drop", "drop", ("catch up", [0, 1]), "drain"]
    assert quiet.log == ["drop"]
    assert platform.owned() == (set(), [set(), set()])


def test_host_memory_waits_for_cards_that_may_still_write(platform):
    dead = platform.cards[0]
    dead.drains = dead.restarts = False

    def start():
        dead.idle = False
        fail()

    with pytest.raises(LookupError):
        take(platform, start)
    assert dead.log[-2:] == ["restart", "give up"]
    assert len(platform.bus.mapped) == 1  # nobody knows it any more, but the card
    assert platform.owned()[1] == [set(), set()]
    dead.idle = True
    platform.session.release_abandoned()
    assert not platform.bus.mapped


def test_abandoned_buffers_are_given_back_once_and_kept_ones_are_not(platform):
    first, second = (take(platform)[0] for _ in range(2))
    platform.session.abandon([first])
    assert platform.bus.mapped == {first, second}
    platform.session.release_abandoned()
    platform.session.release_abandoned()
    assert platform.bus.mapped == {second}
    with pytest.raises(LookupError):
        take(platform, fail)
    assert platform.bus.mapped == {second}


def test_what_could_not_be_undone_is_undone_before_the_next_call(platform):
    card = platform.cards[0]

    def interrupted():
        card.at_drain = lambda: None
        raise KeyboardInterrupt

    def start():
        card.idle = False
        card.at_drain = interrupted
        fail()

    with pytest.raises(KeyboardInterrupt):
        take(platform, start)
    assert platform.owned() != (set(), [set(), set()])
    seen = platform.session.call(platform.owned)
    assert seen == (set(), [set(), set()])
    assert card.idle


def test_an_interruption_at_any_line_leaves_all_or_nothing(platform):
    """Of a call that ends well, of one that fails, and of what undoes it."""
    for then in (lambda: None, fail):
        at = 0
        while True:
            at += 1
            platform = Platform()
            empty = platform.owned()
            try:
                with Interrupt(at) as interrupt:
                    confined(lambda platform=platform, then=then: take(platform, then))
            except (KeyboardInterrupt, LookupError):
                pass
            after = platform.session.call(platform.owned)
            if after != empty:
                assert then is not fail
                assert [len(after[0]), *map(len, after[1])] == [1, 1, 1]
            if interrupt.lines < at:
                break
        assert at > 20


def test_calls_of_many_threads_come_one_after_the_other(platform):
    inside, most, done = 0, 0, []

    def work():
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.001)
        inside -= 1

    def thread(number):
        for turn in range(5):
            try:
                take(platform, lambda turn=turn: (work(), fail() if turn % 2 else None))
            except LookupError:
                done.append((number, turn))

    threads = [threading.Thread(target=thread, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert most == 1
    assert len(done) == 8 * 2
    assert [len(blocks) for blocks in platform.owned()[1]] == [24, 24]
    assert len(platform.bus.mapped) == 24


def test_methods_of_users_are_whole_and_keep_their_names(platform):
    class Thing:
        session = platform.session

        @whole
        def grow(self, *sizes, error=None):
            """Takes memory."""
            for size in sizes:
                platform.memory.allocate(size)
            if error:
                raise error
            return sizes

    thing = Thing()
    assert thing.grow(1, 2) == (1, 2)
    with pytest.raises(LookupError):
        thing.grow(3, error=LookupError())
    assert len(platform.memory.owned) == 2
    assert (Thing.grow.__name__, Thing.grow.__doc__) == ("grow", "Takes memory.")
