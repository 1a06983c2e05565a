// A guest of the contract in C, from the generated bindings alone: no SDK.
//
// word_count      files -> split -> native sum by word -> sink
// sessions_count  JSON events (user, at) -> watermarks -> sessions by user, with state and timers -> sink
//
// Whoever is called owns its arguments and frees them; whoever returns gives away what it returns,
// and the generated code frees it once the host has read it. So all of it must come from malloc.

#include "guest.h"

#include <stdlib.h>
#include <string.h>

void *make(size_t count, size_t size) {
  if (count == 0) return NULL;
  void *memory = calloc(count, size);
  if (memory == NULL) die("out of memory");
  return memory;
}

_Noreturn void die(const char *message) {
  ms_string words;
  millstream_job_string_set(&words, message);
  millstream_job_log_abort(&words);
  __builtin_trap();
}

ms_column numbers(int64_t *values, size_t length) {
  ms_column column = {.values.tag = MILLSTREAM_JOB_ROWS_VALUES_INT64};
  column.values.val.int64 = (millstream_job_list_s64_t){values, length};
  return column;
}

ms_column texts(uint32_t *offsets, size_t length, uint8_t *data) {
  ms_column column = {.values.tag = MILLSTREAM_JOB_ROWS_VALUES_BYTES};
  column.values.val.bytes.offsets = (millstream_job_list_u32_t){offsets, length + 1};
  column.values.val.bytes.data = (millstream_job_list_u8_t){data, offsets[length]};
  // An empty list is not freed by the generated code.
  if (offsets[length] == 0) free(data);
  return column;
}

ms_batch batch_of(size_t length, int64_t *times, size_t columns) {
  ms_batch batch = {.length = length};
  batch.event_times.is_some = times != NULL;
  batch.event_times.val.ptr = times;
  batch.event_times.val.len = times != NULL ? length : 0;
  batch.columns.ptr = make(columns, sizeof *batch.columns.ptr);
  batch.columns.len = columns;
  return batch;
}

void exports_millstream_job_job_jobs(exports_millstream_job_job_list_job_info_t *jobs) {
  jobs->ptr = make(2, sizeof *jobs->ptr);
  jobs->len = 2;
  millstream_job_string_dup(&jobs->ptr[0].name, "word_count");
  millstream_job_string_dup(&jobs->ptr[0].description, "Counts the words of a text.");
  millstream_job_string_dup(&jobs->ptr[1].name, "sessions_count");
  millstream_job_string_dup(&jobs->ptr[1].description, "Counts the events of users' sessions.");
}

bool exports_millstream_job_job_plan(ms_string *job, millstream_job_list_string_t *args, ms_graph *graph, ms_refusal *refusal) {
  bool planned = plan_job(job, args, graph, refusal);
  millstream_job_string_free(job);
  millstream_job_list_string_free(args);
  return planned;
}

bool exports_millstream_job_functions_open(
    exports_millstream_job_functions_task_t *task, exports_millstream_job_functions_list_node_id_t *chain,
    exports_millstream_job_functions_list_node_port_t *outputs, ms_string *error) {
  bool known = chain->len == 1 && (chain->ptr[0] == SPLIT || chain->ptr[0] == SESSIONS);
  if (!known) millstream_job_string_dup(error, "there is no such chain");
  exports_millstream_job_functions_task_free(task);
  exports_millstream_job_functions_list_node_id_free(chain);
  exports_millstream_job_functions_list_node_port_free(outputs);
  return known;
}

void exports_millstream_job_functions_process(
    millstream_job_calls_moment_t *now, uint32_t input, ms_batch *rows, ms_outcome *outcome) {
  // What is returned is not cleared by the generated code.
  memset(outcome, 0, sizeof *outcome);
  split(rows, outcome);
  millstream_job_rows_batch_free(rows);
}

void exports_millstream_job_keyed_functions_process_keyed(
    millstream_job_calls_moment_t *now, ms_keyed_batch *call, ms_keyed_outcome *outcome) {
  memset(outcome, 0, sizeof *outcome);
  sessions_on_rows(call, outcome);
  millstream_job_calls_keyed_batch_free(call);
}

void exports_millstream_job_keyed_functions_on_timers(
    millstream_job_calls_moment_t *now, millstream_job_graph_time_domain_t domain,
    exports_millstream_job_keyed_functions_list_instant_t *times, ms_keyed_batch *call, ms_keyed_outcome *outcome) {
  memset(outcome, 0, sizeof *outcome);
  sessions_on_timers(times->ptr, call, outcome);
  exports_millstream_job_keyed_functions_list_instant_free(times);
  millstream_job_calls_keyed_batch_free(call);
}
