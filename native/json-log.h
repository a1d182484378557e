#ifndef SKIFF_JSON_LOG_H
#define SKIFF_JSON_LOG_H

/*
 * A container's log in Docker's json-file format: one JSON object a line, escaped as Docker does it; lines longer than
 * 16 KiB become several without a newline. All lines of one read go out in one write. A disk that is full costs lines,
 * which are counted, and never blocks.
 */
#include <stddef.h>
#include <stdint.h>

#define LOG_LINE_MAX 16384
/* A byte grows to six at most; the rest is the frame of a line: its members, the stream, the time. */
#define LOG_BATCH (256 * 1024)

struct log_line {
	uint8_t bytes[LOG_LINE_MAX];
	size_t length;
	/* A part of this line is already written: the rest carries the same time. */
	int partial;
	char time[40];
};

struct json_log {
	int fd;
	char *path;
	char *attrs;
	uint64_t size;
	uint64_t bytes_max;
	unsigned files_max;
	uint64_t dropped_lines;
	uint8_t *batch;
	size_t batch_length;
	char now[40];
	struct log_line lines[2];
};

/* `bytes_max` 0: no rotation; `files_max` counts the current file. A log that cannot be opened drops its lines. */
void json_log_open(struct json_log *log, const char *path, const char *attrs, uint64_t bytes_max,
		   unsigned files_max);

/* `stream` 0: stdout, 1: stderr. Everything complete is written when this returns. */
void json_log_write(struct json_log *log, int stream, const uint8_t *data, size_t length);

/* Writes what is left of an unfinished line, at the end of a stream. */
void json_log_end(struct json_log *log, int stream);

void json_log_close(struct json_log *log);

/* The inside of a JSON string; `out` takes 6 × length. Returns the length written. */
size_t json_escape(uint8_t *out, const uint8_t *in, size_t length);

#endif
