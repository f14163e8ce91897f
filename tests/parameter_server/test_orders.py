"""Several servers: whatever the order of messages, nobody waits for ever. Rules and states alone, no processes."""

import random
from collections import deque

import pytest

from parallel_lab import parameter_server as ps
from parallel_lab import synchronization as sync

PULL, PUSH, LEAVE = "pull", "push", "leave"


class Orders:
    """Workers and servers that exchange messages in an order that `chance` picks: rules and states alone.

    Messages of one worker to one server arrive in order, all others in any order. A worker asks all servers at once, or
    one after another (`ahead` 1) until it notices that one has died. `applied` has for each server its updates, in
    order: the set of (worker, step, round) in each, and the staleness of each push in it.
    """

    def __init__(self, rule, workers, servers, steps, chance, ahead=None):
        self.rule, self.steps, self.chance = rule, steps, chance
        self.states = [ps.State.of(range(workers)) for _ in range(servers)]
        self.applied = [[] for _ in range(servers)]
        self.under_way = {(w, s): deque() for w in range(workers) for s in range(servers)}
        self.ahead = dict.fromkeys(range(workers), ahead or servers)
        self.to_ask = {w: [] for w in range(workers)}  # (server, what it is asked), in the worker's order
        self.unnoticed = {w: set() for w in range(workers)}  # servers that have died
        self.read = {w: {} for w in range(workers)}  # server -> (version, together) of the answers in
        self.made, self.rounds, self.together = [0] * workers, [0] * workers, [False] * workers
        self.pushed = [{} for _ in range(servers)]  # worker -> (step, round, version read) of a push held
        for worker in range(workers):
            self.ask(worker, [(PULL, 0, 0)] * servers)

    def choices(self):
        ready = [(w, None) for w, answers in self.read.items() if len(answers) == len(self.states)]
        for (w, s), queue in self.under_way.items():
            if queue and (queue[0][0] != PULL or self.rule.may_pull(self.states[s], w)):
                ready.append((w, s))
            elif queue:
                self.states[s].told(w, *queue[0][1:])  # it asks: that much is known
                self.settle(s)
        return ready

    def run(self):
        while any(state.live for state in self.states):
            before = sum(map(len, self.applied))
            if not (ready := self.choices()):
                assert sum(map(len, self.applied)) > before, f"nobody can go on: {self.states}"
                continue
            self.act(*self.chance.choice(ready))
        return self

    def act(self, worker, server):
        if server is None:
            return self.push(worker)
        kind, *rest = self.under_way[worker, server].popleft()
        state = self.states[server]
        if kind == PULL:
            state.told(worker, *rest)
            self.read[worker][server] = (state.version, self.rule.together(state))
            self.send_asks(worker, 1)
        elif kind == PUSH:
            step, round_, version = rest
            state.told(worker, step + 1, round_)
            state.held.append(worker)
            self.pushed[server][worker] = (step, round_, version)
        else:
            state.live.discard(worker)
        return self.settle(server)

    def settle(self, server):
        state, pushed = self.states[server], self.pushed[server]
        while due := list(self.rule.due(state)):
            used = [(w, *pushed.pop(w)) for w in due]
            names = frozenset((w, step, round_) for w, step, round_, _ in used)
            self.applied[server].append((names, [state.version - version for *_, version in used]))
            state.updated(due)

    def push(self, worker):
        """A worker that has all answers computes, pushes to each server, and asks each for the next parameters."""
        answers, self.read[worker] = self.read[worker], {}
        rounds = self.next_rounds(worker, answers)
        step, self.made[worker] = self.made[worker], self.made[worker] + 1
        for server, round_ in enumerate(rounds):
            if not self.notices(worker, server):  # else the push is lost
                self.under_way[worker, server].append((PUSH, step, round_, answers[server][0]))
        if self.made[worker] < self.steps:
            self.ask(worker, [(PULL, step + 1, round_) for round_ in rounds])
        else:
            for server in range(len(self.states)):
                self.under_way[worker, server].append((LEAVE,))

    def ask(self, worker, asks):
        servers = [(worker - k) % len(self.states) for k in range(len(self.states))]
        self.to_ask[worker] = [(server, asks[server]) for server in servers]
        self.send_asks(worker, self.ahead[worker])

    def send_asks(self, worker, many):
        while self.to_ask[worker] and many:
            server, asks = self.to_ask[worker].pop(0)
            self.under_way[worker, server].append(asks)
            many = len(self.states) if self.notices(worker, server) else many - 1

    def notices(self, worker, server):
        """Whether the worker learns only now that a server has died; from then on it asks all at once."""
        if server not in self.unnoticed[worker]:
            return False
        self.unnoticed[worker].discard(server)
        self.ahead[worker] = len(self.states)
        return True

    def next_rounds(self, worker, answers):
        """What the next push of a worker tells each server."""
        self.together[worker] |= answers[0][1]
        self.rounds[worker] += self.together[worker]
        return [self.rounds[worker]] * len(self.states)

    def kill_server(self, server):
        """A spare takes over from a snapshot; pushes under way to the dead server are lost."""
        old = self.states[server]
        self.states[server] = ps.State.of(old.live, self.chance.randint(0, old.version))
        self.states[server].unheard = set(old.live)
        self.pushed[server].clear()
        for (worker, s), queue in self.under_way.items():
            if s == server:
                self.unnoticed[worker].add(server)
                for message in [m for m in queue if m[0] == PUSH]:
                    queue.remove(message)
                if queue and queue[0][0] == PULL and self.notices(worker, server):
                    self.send_asks(worker, len(self.states))

    def kill_worker(self, worker):
        """Its last messages to each server are lost; each finds out by itself."""
        self.read[worker], self.to_ask[worker] = {}, []
        for (w, _), queue in self.under_way.items():
            if w == worker:
                while queue and self.chance.random() < 0.5:
                    queue.pop()
                if queue and queue[-1][0] == PULL:
                    queue.pop()
                queue.append((LEAVE,))


class EachForItself(Orders):
    """A server's pushes are synchronous when that server itself has reached the switch."""

    def next_rounds(self, worker, answers):
        before = self.rounds[worker] or [0] * len(self.states)
        self.rounds[worker] = [before[s] + answers[s][1] for s in range(len(self.states))]
        return self.rounds[worker]


SHAPES = [(2, 1), (2, 2), (3, 2), (2, 3), (3, 3)]
RULES = [sync.Synchronous(), sync.Mixed(0), sync.Mixed(1), sync.Mixed(5), sync.Mixed(1000)]


def assert_mixed(rule, workers, servers, steps, seed, kind=Orders):
    done = kind(rule, workers, servers, steps, random.Random(seed), ahead=1 if seed % 2 else None).run()
    rounds = []
    for updates in done.applied:
        pushes = [push for names, _ in updates for push in names]
        assert len(pushes) == len(set(pushes)) == workers * steps, "each push is used once"
        for names, staleness in updates:
            numbers = {round_ for *_, round_ in names}
            assert len(numbers) == 1, "one round, or none"
            assert len(names) == 1 or numbers != {0}, "by itself before the switch"
            assert not staleness or max(numbers) < 2 or set(staleness) == {0}, "nothing comes between two rounds"
        rounds.append([names for names, _ in updates if next(iter(names))[2]])
    early = [names for names, _ in done.applied[0] if names not in rounds[0]]
    switch_at = min(rule.switch_at, workers * steps) if isinstance(rule, sync.Mixed) else 0
    assert switch_at <= len(early) <= max(0, switch_at + workers - 1), "after the switch at most one more of each"
    assert all(each == rounds[0] for each in rounds), "the same pushes, in the same synchronous updates, everywhere"


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize(("workers", "servers"), SHAPES)
def test_no_order_of_messages_blocks_and_all_servers_make_the_same_synchronous_updates(rule, workers, servers):
    for seed in range(60):
        assert_mixed(rule, workers, servers, 7, seed)


def test_servers_that_each_count_for_themselves_are_found_out():
    with pytest.raises(AssertionError, match=r"nobody can go on|one round, or none|everywhere|nothing comes between"):
        for seed in range(60):
            assert_mixed(sync.Mixed(5), 2, 2, 7, seed, EachForItself)
    blocked = 0
    for seed in range(60):
        try:
            EachForItself(sync.Mixed(5), 3, 3, 7, random.Random(seed)).run()
        except AssertionError:
            blocked += 1
    assert blocked, "workers wait for each other at different servers"


@pytest.mark.parametrize("rule", [sync.Synchronous(), sync.Mixed(4), sync.Asynchronous()], ids=repr)
@pytest.mark.parametrize(("workers", "servers"), [(2, 2), (3, 3)])
def test_no_order_blocks_when_servers_and_a_worker_die(rule, workers, servers):
    for seed in range(100):
        chance = random.Random(seed)
        orders = Orders(rule, workers, servers, 8, chance, ahead=1 if seed % 2 else None)
        dies_at, kills = chance.randrange(200), sorted(chance.sample(range(200), 3))
        for moment in range(100_000):
            if not any(state.live for state in orders.states):
                break
            if moment in kills:
                orders.kill_server(chance.randrange(servers))
            if moment == dies_at and orders.made[0] < orders.steps:
                orders.kill_worker(0)
            before = sum(map(len, orders.applied))
            if ready := orders.choices():
                orders.act(*chance.choice(ready))
            else:
                assert sum(map(len, orders.applied)) > before, f"seed {seed}: nobody can go on: {orders.states}"
        assert all(made == 8 for made in orders.made[1:])
