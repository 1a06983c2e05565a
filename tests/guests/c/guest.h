// What the files of this guest share. `ms_` is short for the generator's `millstream_job_`.
#pragma once

#include "millstream_job.h"

typedef millstream_job_string_t ms_string;
typedef millstream_job_rows_batch_t ms_batch;
typedef millstream_job_rows_column_t ms_column;
typedef millstream_job_rows_schema_t ms_schema;
typedef millstream_job_calls_keyed_batch_t ms_keyed_batch;
typedef millstream_job_calls_keyed_outcome_t ms_keyed_outcome;
typedef millstream_job_calls_outcome_t ms_outcome;
typedef exports_millstream_job_job_job_graph_t ms_graph;
typedef exports_millstream_job_job_refusal_t ms_refusal;

// The nodes that are functions.
enum { SPLIT = 1, SESSIONS = 2 };
// A user's run of events ends so long after the last of them, in milliseconds.
#define GAP 5000
// Events come at most this late.
#define DISORDER 1000

// Cleared memory for so many values; NULL for none, as the generated code frees only what is not empty.
void *make(size_t count, size_t size);
// The guest's last words: the host shows them. `abort()` would trap without any.
_Noreturn void die(const char *message);

bool plan_job(const ms_string *job, const millstream_job_list_string_t *args, ms_graph *graph, ms_refusal *refusal);

void split(const ms_batch *rows, ms_outcome *outcome);
void sessions_on_rows(const ms_keyed_batch *call, ms_keyed_outcome *outcome);
void sessions_on_timers(const int64_t *times, const ms_keyed_batch *call, ms_keyed_outcome *outcome);

// A column of numbers, which takes over the memory.
ms_column numbers(int64_t *values, size_t length);
// A column of texts, which takes over the memory.
ms_column texts(uint32_t *offsets, size_t length, uint8_t *data);
// Room for so many columns, in a batch of so many rows.
ms_batch batch_of(size_t length, int64_t *times, size_t columns);
