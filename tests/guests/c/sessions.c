// Counts a user's events until none has come for GAP of event time: state and timers by value.

#include "guest.h"

#include <stdlib.h>
#include <string.h>

enum { SET_EVENT_TIME = 0, DELETE_EVENT_TIME = 1 };

static bool bit(const uint8_t *bits, size_t place) { return bits[place / 8] >> (place % 8) & 1; }
static void set_bit(uint8_t *bits, size_t place, bool on) {
  bits[place / 8] = (bits[place / 8] & ~(1 << (place % 8))) | on << (place % 8);
}

// The state of each group: a structure of two numbers, which may be null.
struct state {
  size_t groups;
  uint8_t *present, *written;
  int64_t *count, *last;
};

static struct state state_of(const ms_keyed_batch *call) {
  size_t groups = call->group_count, bytes = (groups + 7) / 8;
  // The structure itself, then its members.
  const ms_column *session = &call->state.ptr[0];
  struct state state = {
      groups, make(bytes, 1), make(bytes, 1), make(groups, sizeof *state.count), make(groups, sizeof *state.last)};
  memset(state.present, 0xff, bytes);
  if (session->validity.is_some) memcpy(state.present, session->validity.val.ptr, bytes);
  memcpy(state.count, call->state.ptr[1].values.val.int64.ptr, groups * sizeof *state.count);
  memcpy(state.last, call->state.ptr[2].values.val.int64.ptr, groups * sizeof *state.last);
  return state;
}

// Gives the state's memory to the outcome.
static void update(struct state state, ms_keyed_outcome *outcome) {
  size_t bytes = (state.groups + 7) / 8;
  millstream_job_calls_state_update_t *update = make(1, sizeof *update);
  update->written = (millstream_job_option_list_u8_t){true, {state.written, bytes}};
  update->columns.ptr = make(3, sizeof *update->columns.ptr);
  update->columns.len = 3;
  update->columns.ptr[0].values.tag = MILLSTREAM_JOB_ROWS_VALUES_NOTHING;
  update->columns.ptr[0].validity = (millstream_job_option_list_u8_t){true, {state.present, bytes}};
  update->columns.ptr[1] = numbers(state.count, state.groups);
  update->columns.ptr[2] = numbers(state.last, state.groups);
  outcome->updates.ptr = update;
  outcome->updates.len = 1;
}

// Sessions that have ended, in columns.
struct ended {
  size_t length, data_length;
  uint8_t *users;
  uint32_t *offsets;
  int64_t *counts, *lasts, *times;
};

// Room for so many rows, whose users are together at most as long as this.
static struct ended room(size_t rows, size_t data) {
  return (struct ended){
      .users = make(data, 1), .offsets = make(rows + 1, 4), .counts = make(rows, 8), .lasts = make(rows, 8),
      .times = make(rows, 8)};
}

static void end(struct ended *ended, const millstream_job_rows_varlen_t *users, size_t user, int64_t count,
                int64_t last, int64_t time) {
  size_t from = users->offsets.ptr[user], length = users->offsets.ptr[user + 1] - from;
  if (length > 0) memcpy(ended->users + ended->data_length, users->data.ptr + from, length);
  ended->data_length += length;
  ended->counts[ended->length] = count;
  ended->lasts[ended->length] = last;
  ended->times[ended->length] = time;
  ended->offsets[++ended->length] = ended->data_length;
}

static void emit(struct ended ended, ms_keyed_outcome *outcome) {
  if (ended.length == 0) {
    // A port does not occur when it has no rows.
    free(ended.users), free(ended.offsets), free(ended.counts), free(ended.lasts), free(ended.times);
    return;
  }
  outcome->outputs.ptr = make(1, sizeof *outcome->outputs.ptr);
  outcome->outputs.len = 1;
  ms_batch *out = &outcome->outputs.ptr[0].rows;
  *out = batch_of(ended.length, ended.times, 3);
  out->columns.ptr[0] = texts(ended.offsets, ended.length, ended.users);
  out->columns.ptr[1] = numbers(ended.counts, ended.length);
  out->columns.ptr[2] = numbers(ended.lasts, ended.length);
}

static void change(millstream_job_calls_timer_changes_t *timers, uint32_t group, int64_t time, uint8_t change) {
  timers->groups.ptr[timers->groups.len++] = group;
  timers->times.ptr[timers->times.len++] = time;
  timers->changes.ptr[timers->changes.len++] = change;
}

static void fail(ms_keyed_outcome *outcome, uint32_t row, const char *message) {
  millstream_job_calls_failure_t *failure = &outcome->failures.ptr[outcome->failures.len++];
  failure->node = SESSIONS;
  failure->row = row;
  millstream_job_string_dup(&failure->message, message);
}

void sessions_on_rows(const ms_keyed_batch *call, ms_keyed_outcome *outcome) {
  struct state state = state_of(call);
  const millstream_job_calls_keyed_rows_t *input = &call->inputs.ptr[0];
  const ms_batch *rows = &input->rows;
  const millstream_job_rows_varlen_t *users = &rows->columns.ptr[0].values.val.bytes;
  const int64_t *times = rows->event_times.val.ptr;
  struct ended ended = room(rows->length, users->data.len);
  millstream_job_calls_timer_changes_t *timers = &outcome->timers;
  timers->groups.ptr = make(2 * rows->length, sizeof *timers->groups.ptr);
  timers->times.ptr = make(2 * rows->length, sizeof *timers->times.ptr);
  timers->changes.ptr = make(2 * rows->length, sizeof *timers->changes.ptr);
  outcome->failures.ptr = make(rows->length, sizeof *outcome->failures.ptr);
  for (size_t row = 0; row < rows->length; row++) {
    if (users->offsets.ptr[row] == users->offsets.ptr[row + 1]) {
      fail(outcome, row, "an event without a user");
      continue;
    }
    uint32_t group = input->groups.ptr[row];
    bool present = bit(state.present, group);
    if (present && times[row] > state.last[group] + GAP) {
      // The watermark has not passed the timer yet, but this row has: the session ends here.
      end(&ended, users, row, state.count[group], state.last[group], times[row]);
      change(timers, group, state.last[group] + GAP, DELETE_EVENT_TIME);
      present = false;
    }
    if (!present) {
      state.count[group] = 0;
      state.last[group] = times[row];
      change(timers, group, times[row] + GAP, SET_EVENT_TIME);
    } else if (times[row] > state.last[group]) {
      change(timers, group, state.last[group] + GAP, DELETE_EVENT_TIME);
      change(timers, group, times[row] + GAP, SET_EVENT_TIME);
      state.last[group] = times[row];
    }
    state.count[group]++;
    set_bit(state.present, group, true);
    set_bit(state.written, group, true);
  }
  if (timers->groups.len == 0) {
    free(timers->groups.ptr), free(timers->times.ptr), free(timers->changes.ptr);
  }
  if (outcome->failures.len == 0) free(outcome->failures.ptr);
  emit(ended, outcome);
  update(state, outcome);
}

void sessions_on_timers(const int64_t *times, const ms_keyed_batch *call, ms_keyed_outcome *outcome) {
  struct state state = state_of(call);
  const millstream_job_rows_varlen_t *users = &call->keys.ptr[0].values.val.bytes;
  struct ended ended = room(state.groups, users->data.len);
  for (size_t group = 0; group < state.groups; group++) {
    if (!bit(state.present, group) || times[group] != state.last[group] + GAP) die("a timer that was deleted");
    end(&ended, users, group, state.count[group], state.last[group], times[group]);
    set_bit(state.present, group, false);
    set_bit(state.written, group, true);
  }
  emit(ended, outcome);
  update(state, outcome);
}
