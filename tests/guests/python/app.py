"""A guest of the contract in Python, from the bindings alone: no SDK.

word_count      files -> split -> native sum by word -> sink
sessions        JSON events (user, at) -> watermarks -> sessions by user, with state and timers -> sink
sessions_count  the same, for rows of which none joins two sessions: it moves one timer, in one structure
"""

import traceback

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.job import JobInfo, Refusal_Help, Refusal_Usage
from wit_world.imports import log
from wit_world.imports.calls import (
    Failure,
    KeyedOutcome,
    Outcome,
    Output,
    StateUpdate,
    TimerChanges,
)
from wit_world.imports.graph import (
    Aggregate,
    Chaining,
    Connection,
    Edge,
    FailurePolicy,
    Function,
    JobGraph,
    Node,
    NodeKind_Aggregate,
    NodeKind_Function,
    NodeKind_Sink,
    NodeKind_Source,
    NodeKind_Watermarks,
    Partition_Forward,
    Partition_Hash,
    Port,
    Setting,
    State,
    StateKind_Value,
    Watermarks,
    WatermarkStrategy_Bounded,
)
from wit_world.imports.rows import (
    Batch,
    Column,
    DataType_Int64,
    DataType_Sequence,
    DataType_Structure,
    DataType_Text,
    DataType_Timestamp,
    Field,
    TimeUnit,
    Values_Bytes,
    Values_Int64,
    Values_Nothing,
    Values_Offsets,
    Varlen,
)

GAP = 5_000
DISORDER = 1_000
# The nodes that are functions.
SPLIT, SESSIONS = 1, 2

LINE = [Field("line", DataType_Text(), False)]
WORDS = [Field("word", DataType_Text(), False), Field("one", DataType_Int64(), False)]
COUNTS = [Field("word", DataType_Text(), False), Field("count", DataType_Int64(), False)]
AT = DataType_Timestamp(TimeUnit.MILLISECONDS)
EVENTS = [Field("user", DataType_Text(), False), Field("at", AT, False)]
ENDED = [
    Field("user", DataType_Text(), False),
    Field("start", DataType_Int64(), False),
    Field("end", DataType_Int64(), False),
    Field("events", DataType_Int64(), False),
]
# A list of (start, end, events): rows out of order may open several sessions of a user.
STATE = [
    Field("sessions", DataType_Sequence(), True),
    Field("session", DataType_Structure(3), False),
    Field("start", DataType_Int64(), False),
    Field("end", DataType_Int64(), False),
    Field("events", DataType_Int64(), False),
]
COUNTED = [
    Field("user", DataType_Text(), False),
    Field("count", DataType_Int64(), False),
    Field("last", DataType_Int64(), False),
]
# One field, a structure of two.
SESSION = [
    Field("session", DataType_Structure(2), True),
    Field("count", DataType_Int64(), False),
    Field("last", DataType_Int64(), False),
]
USAGE = "Usage: [--input PATH] [--output print|blackhole|DIR] [--format json|csv|text]\n"


def loudly(function):
    """An exception's message would be lost in the trap: it goes to the host as last words."""

    def call(*args):
        try:
            return function(*args)
        except Err:
            raise
        except BaseException as error:
            # Without the lines of the source: there are no files to read them from.
            frames = traceback.walk_tb(error.__traceback__)
            told = [f"{type(error).__name__}: {error}"]
            told += [f"  {f.f_code.co_filename}:{line} in {f.f_code.co_name}" for f, line in frames]
            log.abort("\n".join(told))

    return call


def arguments(args):
    given = {"--input": None, "--output": "print", "--format": None}
    rest = iter(args)
    for name in rest:
        if name in ("-h", "--help"):
            raise Err(Refusal_Help(USAGE))
        if name not in given:
            raise Err(Refusal_Usage(f"unexpected argument `{name}`\n\n{USAGE}"))
        given[name] = next(rest, None)
        if given[name] is None:
            raise Err(Refusal_Usage(f"`{name}` wants a value\n\n{USAGE}"))
    if given["--input"] is None:
        raise Err(Refusal_Usage(f"`--input` is missing\n\n{USAGE}"))
    return given


def node(name, kind, schema=None, on_failure=FailurePolicy.FAIL):
    outputs = [] if schema is None else [Port("main", schema, False)]
    return Node(name.lower(), name, "app.py", None, None, kind, outputs, on_failure, Chaining.ALLOWED)


def source(given, format):
    return NodeKind_Source(Connection("files", [Setting("path", given["--input"])], format, []))


def sink(given):
    to, format = given["--output"], given["--format"]
    if to in ("print", "blackhole"):
        return NodeKind_Sink(Connection(to, [], format, []))
    return NodeKind_Sink(Connection("files", [Setting("path", to)], format or "json", []))


class Job(exports.Job):
    def jobs(self):
        return [
            JobInfo("word_count", "Counts the words of a text."),
            JobInfo("sessions", "Counts the events of users' sessions."),
            JobInfo("sessions_count", "Counts the events of users' sessions, with one timer a user."),
        ]

    def plan(self, job, args):
        given = arguments(args)
        forward, by_key = Partition_Forward(), Partition_Hash([0])
        if job == "word_count":
            total = NodeKind_Aggregate([Aggregate("sum", [1], [])])
            nodes = [
                node("Source", source(given, "lines"), LINE),
                node("Split", NodeKind_Function(Function([LINE], [], False, False, None)), WORDS),
                node("Sum", total, COUNTS),
                node("Sink", sink(given)),
            ]
            edges = [Edge(0, 0, 1, 0, forward), Edge(1, 0, 2, 0, by_key), Edge(2, 0, 3, 0, forward)]
        else:
            times = Watermarks(1, WatermarkStrategy_Bounded(DISORDER), None, None, None)
            if job == "sessions":
                sessions, ended = Function([EVENTS], [State("sessions", StateKind_Value(), [], STATE, None)], True, False, None), ENDED
            else:
                sessions, ended = Function([EVENTS], [State("session", StateKind_Value(), [], SESSION, None)], True, False, None), COUNTED
            nodes = [
                node("Source", source(given, "json"), EVENTS),
                node("Times", NodeKind_Watermarks(times), EVENTS),
                node("Sessions", NodeKind_Function(sessions), ended, FailurePolicy.SKIP),
                node("Sink", sink(given)),
            ]
            edges = [Edge(0, 0, 1, 0, forward), Edge(1, 0, 2, 0, by_key), Edge(2, 0, 3, 0, forward)]
        return JobGraph(job, nodes, edges, [])


def texts(column):
    varlen = column.values.value
    offsets, data = varlen.offsets, varlen.data
    return [data[offsets[i] : offsets[i + 1]] for i in range(len(offsets) - 1)]


def text_column(values):
    offsets, end = [0], 0
    for value in values:
        end += len(value)
        offsets.append(end)
    return Column(Values_Bytes(Varlen(offsets, b"".join(values))), None)


def numbers(values):
    return Column(Values_Int64(values), None)


def bits(flags):
    packed = bytearray((len(flags) + 7) // 8)
    for i, flag in enumerate(flags):
        packed[i >> 3] |= flag << (i & 7)
    return bytes(packed)


# The job whose function this instance is, from `open` on.
opened = None


class Functions(exports.Functions):
    def open(self, task, chain, outputs):
        global opened
        if chain not in ([SPLIT], [SESSIONS]):
            raise Err(f"{task.job} has no chain {chain}")
        opened = {"sessions": Sessions, "sessions_count": SessionsCount}.get(task.job)

    @loudly
    def process(self, now, input, rows):
        words, times = [], None if rows.event_times is None else []
        for row, line in enumerate(texts(rows.columns[0])):
            if line == b"!raise":
                raise ValueError("told to raise")
            of_line = line.split()
            words += of_line
            if times is not None:
                times += [rows.event_times[row]] * len(of_line)
        if not words:
            return Outcome([], [])
        columns = [text_column(words), numbers([1] * len(words))]
        return Outcome([Output(0, Batch(len(words), times, None, columns))], [])


def sessions_of(call):
    """Each group's sessions, as a list of (start, end, events)."""
    lists, _, *members = call.state
    starts, ends, events = (member.values.value for member in members)
    offsets = lists.values.value
    sessions = list(zip(starts, ends, events))
    return [sessions[offsets[group] : offsets[group + 1]] for group in range(call.group_count)]


def update(groups):
    """The state with these sessions; a group without any has none."""
    offsets, sessions = [0], []
    for of_group in groups:
        sessions += of_group
        offsets.append(len(sessions))
    lists = Column(Values_Offsets(offsets), bits([bool(of_group) for of_group in groups]))
    members = [numbers([session[member] for session in sessions]) for member in range(3)]
    return StateUpdate(0, None, [lists, Column(Values_Nothing(), None), *members])


def joined(sessions, time):
    """Sessions with one event more, which may join some; and the session that it is in."""
    near = [s for s in sessions if s[0] - GAP < time < s[1] + GAP]
    far = [s for s in sessions if s not in near]
    start = min([time] + [s[0] for s in near])
    end = max([time] + [s[1] for s in near])
    session = (start, end, 1 + sum(s[2] for s in near))
    return far + [session], session


class Sessions:
    """A session of a user is a run of events less than GAP apart; it ends by a timer."""

    def on_rows(call):
        sessions = sessions_of(call)
        input = call.inputs[0]
        users, times = texts(input.rows.columns[0]), input.rows.event_times
        groups, at, failures = [], [], []
        for row, group in enumerate(input.groups):
            if not users[row]:
                failures.append(Failure(SESSIONS, row, "an event without a user"))
                continue
            sessions[group], session = joined(sessions[group], times[row])
            groups.append(group)
            at.append(session[1] + GAP - 1)
        # 0 sets a timer of event time.
        return KeyedOutcome([], [update(sessions)], [], TimerChanges(groups, at, bytes(len(at))), failures)

    def on_timers(times, call):
        ended, open_still = [], []
        for group, sessions in enumerate(sessions_of(call)):
            is_over = lambda session: session[1] + GAP - 1 <= times[group]
            ended += [(group, *session) for session in sessions if is_over(session)]
            open_still.append([session for session in sessions if not is_over(session)])
        outputs = []
        if ended:
            users = texts(call.keys[0])
            columns = [text_column([users[group] for group, *_ in ended])]
            columns += [numbers([session[member] for session in ended]) for member in (1, 2, 3)]
            at = [times[group] for group, *_ in ended]
            outputs = [Output(0, Batch(len(ended), at, None, columns))]
        return KeyedOutcome(outputs, [update(open_still)], [], TimerChanges([], [], b""), [])


# Changes of timers of event time.
SET, DELETE = 0, 1


def is_set(bits, place):
    return bits is None or bits[place >> 3] >> (place & 7) & 1


class SessionsCount:
    """A user's events until none has come for GAP: one timer a user, which each later event moves."""

    def on_rows(call):
        session, *members = call.state
        counts, lasts = (member.values.value for member in members)
        # Members of a null structure hold anything.
        present = [is_set(session.validity, group) for group in range(call.group_count)]
        written = [False] * call.group_count
        ended, changes, failures = [], [], []
        input = call.inputs[0]
        for row, (group, user, at) in enumerate(zip(input.groups, texts(input.rows.columns[0]), input.rows.event_times)):
            if not user:
                failures.append(Failure(SESSIONS, row, "an event without a user"))
                continue
            last = lasts[group]
            if present[group] and at > last + GAP:
                # The watermark has not passed the timer yet, but this row has: the session ends here.
                ended.append((user, counts[group], last, at))
                changes.append((group, last + GAP, DELETE))
                present[group] = False
            if not present[group]:
                counts[group], lasts[group] = 0, at
                changes.append((group, at + GAP, SET))
            elif at > last:
                lasts[group] = at
                changes += [(group, last + GAP, DELETE), (group, at + GAP, SET)]
            counts[group] += 1
            present[group] = written[group] = True
        columns = [Column(Values_Nothing(), bits(present)), numbers(counts), numbers(lasts)]
        groups, times, kinds = zip(*changes) if changes else ((), (), ())
        timers = TimerChanges(list(groups), list(times), bytes(kinds))
        return KeyedOutcome(counted(ended), [StateUpdate(0, bits(written), columns)], [], timers, failures)

    def on_timers(times, call):
        session, *members = call.state
        counts, lasts = (member.values.value for member in members)
        for group, time in enumerate(times):
            if not is_set(session.validity, group) or time != lasts[group] + GAP:
                raise ValueError(f"a timer for {time}, which was deleted")
        ended = list(zip(texts(call.keys[0]), counts, lasts, times))
        none = Column(Values_Nothing(), bits([False] * call.group_count))
        update = StateUpdate(0, None, [none, numbers(counts), numbers(lasts)])
        return KeyedOutcome(counted(ended), [update], [], TimerChanges([], [], b""), [])


def counted(ended):
    if not ended:
        return []
    users, counts, lasts, times = map(list, zip(*ended))
    columns = [text_column(users), numbers(counts), numbers(lasts)]
    return [Output(0, Batch(len(ended), times, None, columns))]


class KeyedFunctions(exports.KeyedFunctions):
    @loudly
    def process_keyed(self, now, call):
        return opened.on_rows(call)

    @loudly
    def on_timers(self, now, domain, times, call):
        return opened.on_timers(times, call)
