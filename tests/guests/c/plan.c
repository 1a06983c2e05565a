// The job graphs.

#include "guest.h"

#include <string.h>

#define USAGE "Usage: [--input PATH] [--output print|blackhole|DIR] [--format json|csv|text]\n"

// A row's fields, ended by one without a name.
struct column {
  const char *name;
  uint8_t type;
  uint32_t members;
  bool nullable;
};

static const struct column LINE[] = {{"line", MILLSTREAM_JOB_ROWS_DATA_TYPE_TEXT}, {0}};
static const struct column WORDS[] = {
    {"word", MILLSTREAM_JOB_ROWS_DATA_TYPE_TEXT}, {"one", MILLSTREAM_JOB_ROWS_DATA_TYPE_INT64}, {0}};
static const struct column COUNTS[] = {
    {"word", MILLSTREAM_JOB_ROWS_DATA_TYPE_TEXT}, {"count", MILLSTREAM_JOB_ROWS_DATA_TYPE_INT64}, {0}};
static const struct column EVENTS[] = {
    {"user", MILLSTREAM_JOB_ROWS_DATA_TYPE_TEXT}, {"at", MILLSTREAM_JOB_ROWS_DATA_TYPE_TIMESTAMP}, {0}};
static const struct column ENDED[] = {
    {"user", MILLSTREAM_JOB_ROWS_DATA_TYPE_TEXT},
    {"count", MILLSTREAM_JOB_ROWS_DATA_TYPE_INT64},
    {"last", MILLSTREAM_JOB_ROWS_DATA_TYPE_INT64},
    {0}};
// One field, a structure of two.
static const struct column SESSION[] = {
    {"session", MILLSTREAM_JOB_ROWS_DATA_TYPE_STRUCTURE, 2, true},
    {"count", MILLSTREAM_JOB_ROWS_DATA_TYPE_INT64},
    {"last", MILLSTREAM_JOB_ROWS_DATA_TYPE_INT64},
    {0}};

static ms_schema schema(const struct column *columns) {
  ms_schema schema = {0};
  while (columns[schema.len].name != NULL) schema.len++;
  schema.ptr = make(schema.len, sizeof *schema.ptr);
  for (size_t i = 0; i < schema.len; i++) {
    millstream_job_string_dup(&schema.ptr[i].name, columns[i].name);
    schema.ptr[i].data_type.tag = columns[i].type;
    if (columns[i].type == MILLSTREAM_JOB_ROWS_DATA_TYPE_STRUCTURE) {
      schema.ptr[i].data_type.val.structure = columns[i].members;
    } else if (columns[i].type == MILLSTREAM_JOB_ROWS_DATA_TYPE_TIMESTAMP) {
      schema.ptr[i].data_type.val.timestamp = MILLSTREAM_JOB_ROWS_TIME_UNIT_MILLISECONDS;
    }
    schema.ptr[i].nullable = columns[i].nullable;
  }
  return schema;
}

static void copy(ms_string *to, const ms_string *from) {
  millstream_job_string_dup_n(to, (const char *)from->ptr, from->len);
}

static bool is(const ms_string *text, const char *other) {
  return text->len == strlen(other) && memcmp(text->ptr, other, text->len) == 0;
}

static bool refuse(ms_refusal *refusal, uint8_t tag, const char *text) {
  refusal->tag = tag;
  // All cases hold a text.
  millstream_job_string_dup(&refusal->val.usage, text);
  return false;
}

// What the user asked for; NULL = not given.
struct arguments {
  const ms_string *input, *output, *format;
};

static bool parse(const millstream_job_list_string_t *args, struct arguments *arguments, ms_refusal *refusal) {
  for (size_t i = 0; i < args->len; i += 2) {
    const ms_string *name = &args->ptr[i];
    if (is(name, "--help") || is(name, "-h")) return refuse(refusal, EXPORTS_MILLSTREAM_JOB_JOB_REFUSAL_HELP, USAGE);
    const ms_string **place = is(name, "--input")    ? &arguments->input
                              : is(name, "--output") ? &arguments->output
                              : is(name, "--format") ? &arguments->format
                                                     : NULL;
    if (place == NULL || i + 1 == args->len) {
      return refuse(refusal, EXPORTS_MILLSTREAM_JOB_JOB_REFUSAL_USAGE, "an argument is unknown, or has no value\n\n" USAGE);
    }
    *place = &args->ptr[i + 1];
  }
  if (arguments->input != NULL) return true;
  return refuse(refusal, EXPORTS_MILLSTREAM_JOB_JOB_REFUSAL_USAGE, "`--input` is missing\n\n" USAGE);
}

static millstream_job_graph_connection_t connection(const char *connector, const ms_string *path) {
  millstream_job_graph_connection_t connection = {0};
  millstream_job_string_dup(&connection.connector, connector);
  if (path != NULL) {
    connection.options.ptr = make(1, sizeof *connection.options.ptr);
    connection.options.len = 1;
    millstream_job_string_dup(&connection.options.ptr[0].name, "path");
    copy(&connection.options.ptr[0].value, path);
  }
  return connection;
}

static millstream_job_graph_connection_t source(const struct arguments *arguments, const char *format) {
  millstream_job_graph_connection_t source = connection("files", arguments->input);
  source.format.is_some = true;
  millstream_job_string_dup(&source.format.val, format);
  return source;
}

static millstream_job_graph_connection_t sink(const struct arguments *arguments) {
  const ms_string *output = arguments->output;
  bool blackhole = output != NULL && is(output, "blackhole");
  bool files = output != NULL && !blackhole && !is(output, "print");
  millstream_job_graph_connection_t sink =
      files ? connection("files", output) : connection(blackhole ? "blackhole" : "print", NULL);
  sink.format.is_some = files || arguments->format != NULL;
  if (arguments->format != NULL) {
    copy(&sink.format.val, arguments->format);
  } else if (files) {
    millstream_job_string_dup(&sink.format.val, "json");
  }
  return sink;
}

// A node without a kind as yet; a sink has no columns.
static millstream_job_graph_node_t *node(ms_graph *graph, const char *name, uint8_t kind, const struct column *columns) {
  millstream_job_graph_node_t *node = &graph->nodes.ptr[graph->nodes.len++];
  node->uid.is_some = true;
  millstream_job_string_dup(&node->uid.val, name);
  millstream_job_string_dup(&node->name, name);
  node->kind.tag = kind;
  if (columns != NULL) {
    node->outputs.ptr = make(1, sizeof *node->outputs.ptr);
    node->outputs.len = 1;
    millstream_job_string_dup(&node->outputs.ptr[0].name, "main");
    node->outputs.ptr[0].schema = schema(columns);
  }
  return node;
}

static void function(millstream_job_graph_node_t *node, const struct column *input) {
  node->kind.val.function.inputs.ptr = make(1, sizeof *node->kind.val.function.inputs.ptr);
  node->kind.val.function.inputs.len = 1;
  node->kind.val.function.inputs.ptr[0] = schema(input);
}

// Four nodes in a row; rows go by the first column to the one with this number, else straight on.
static void edges(ms_graph *graph, uint32_t keyed) {
  graph->edges.ptr = make(3, sizeof *graph->edges.ptr);
  graph->edges.len = 3;
  for (uint32_t i = 0; i < 3; i++) {
    millstream_job_graph_edge_t *edge = &graph->edges.ptr[i];
    edge->producer = i;
    edge->consumer = i + 1;
    if (i + 1 == keyed) {
      edge->partition.tag = MILLSTREAM_JOB_GRAPH_PARTITION_HASH;
      edge->partition.val.hash.ptr = make(1, sizeof(uint32_t));
      edge->partition.val.hash.len = 1;
    }
  }
}

static void word_count(const struct arguments *arguments, ms_graph *graph) {
  node(graph, "Source", MILLSTREAM_JOB_GRAPH_NODE_KIND_SOURCE, LINE)->kind.val.source = source(arguments, "lines");
  function(node(graph, "Split", MILLSTREAM_JOB_GRAPH_NODE_KIND_FUNCTION, WORDS), LINE);
  millstream_job_graph_node_t *sum = node(graph, "Sum", MILLSTREAM_JOB_GRAPH_NODE_KIND_AGGREGATE, COUNTS);
  millstream_job_graph_aggregate_t *aggregate = make(1, sizeof *aggregate);
  millstream_job_string_dup(&aggregate->function, "sum");
  aggregate->columns.ptr = make(1, sizeof *aggregate->columns.ptr);
  aggregate->columns.ptr[0] = 1;
  aggregate->columns.len = 1;
  sum->kind.val.aggregate = (millstream_job_graph_list_aggregate_t){aggregate, 1};
  node(graph, "Sink", MILLSTREAM_JOB_GRAPH_NODE_KIND_SINK, NULL)->kind.val.sink = sink(arguments);
  edges(graph, 2);
}

static void sessions_count(const struct arguments *arguments, ms_graph *graph) {
  node(graph, "Source", MILLSTREAM_JOB_GRAPH_NODE_KIND_SOURCE, EVENTS)->kind.val.source = source(arguments, "json");
  millstream_job_graph_watermarks_t *watermarks =
      &node(graph, "Times", MILLSTREAM_JOB_GRAPH_NODE_KIND_WATERMARKS, EVENTS)->kind.val.watermarks;
  watermarks->time_column.is_some = true;
  watermarks->time_column.val = 1;
  watermarks->strategy.tag = MILLSTREAM_JOB_GRAPH_WATERMARK_STRATEGY_BOUNDED;
  watermarks->strategy.val.bounded = DISORDER;
  millstream_job_graph_node_t *sessions = node(graph, "Sessions", MILLSTREAM_JOB_GRAPH_NODE_KIND_FUNCTION, ENDED);
  sessions->on_failure = MILLSTREAM_JOB_GRAPH_FAILURE_POLICY_SKIP;
  function(sessions, EVENTS);
  millstream_job_graph_state_t *state = make(1, sizeof *state);
  millstream_job_string_dup(&state->name, "session");
  state->value = schema(SESSION);
  sessions->kind.val.function.states.ptr = state;
  sessions->kind.val.function.states.len = 1;
  sessions->kind.val.function.timers = true;
  node(graph, "Sink", MILLSTREAM_JOB_GRAPH_NODE_KIND_SINK, NULL)->kind.val.sink = sink(arguments);
  edges(graph, 2);
}

bool plan_job(const ms_string *job, const millstream_job_list_string_t *args, ms_graph *graph, ms_refusal *refusal) {
  struct arguments arguments = {0};
  if (!parse(args, &arguments, refusal)) return false;
  memset(graph, 0, sizeof *graph);
  copy(&graph->name, job);
  graph->nodes.ptr = make(4, sizeof *graph->nodes.ptr);
  (is(job, "word_count") ? word_count : sessions_count)(&arguments, graph);
  return true;
}
