// Splits lines into words, column by column.

#include "guest.h"

#include <stdlib.h>
#include <string.h>

// ASCII white space is never a part of another UTF-8 character.
static bool is_space(uint8_t byte) { return byte == ' ' || (byte >= '\t' && byte <= '\r'); }

// Rows of one text column in; rows of a word and a one out. A word has its line's time.
void split(const ms_batch *rows, ms_outcome *outcome) {
  const millstream_job_rows_varlen_t *lines = &rows->columns.ptr[0].values.val.bytes;
  const uint8_t *text = lines->data.ptr;
  // Each word but a line's last is followed by a space.
  size_t most = (lines->data.len + rows->length) / 2;
  uint8_t *data = make(lines->data.len, 1);
  uint32_t *offsets = make(most + 1, sizeof *offsets);
  int64_t *times = rows->event_times.is_some ? make(most, sizeof *times) : NULL;
  size_t words = 0, end = 0;
  for (size_t row = 0; row < rows->length; row++) {
    size_t at = lines->offsets.ptr[row], line_end = lines->offsets.ptr[row + 1];
    if (line_end - at == 6 && memcmp(text + at, "!abort", 6) == 0) die("told to abort by a line");
    while (true) {
      while (at < line_end && is_space(text[at])) at++;
      if (at == line_end) break;
      while (at < line_end && !is_space(text[at])) data[end++] = text[at++];
      if (times != NULL) times[words] = rows->event_times.val.ptr[row];
      offsets[++words] = end;
    }
  }
  if (words == 0) {
    free(data);
    free(offsets);
    free(times);
    return;
  }
  int64_t *ones = make(words, sizeof *ones);
  for (size_t word = 0; word < words; word++) ones[word] = 1;
  outcome->outputs.ptr = make(1, sizeof *outcome->outputs.ptr);
  outcome->outputs.len = 1;
  ms_batch *out = &outcome->outputs.ptr[0].rows;
  *out = batch_of(words, times, 2);
  out->columns.ptr[0] = texts(offsets, words, data);
  out->columns.ptr[1] = numbers(ones, words);
}
