#include "json-log.h"

#include <fcntl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io.h"

/* 0: as it is; 1: \u00xx; 2: the start of something beyond ASCII; else the letter after the backslash. */
static const uint8_t kinds[256] = {
	[0 ... 9] = 1, ['\n'] = 'n', [11 ... 12] = 1, ['\r'] = 'r', [14 ... 31] = 1, ['"'] = '"', ['\\'] = '\\',
	['<'] = 1,     ['>'] = 1,    ['&'] = 1,       [128 ... 255] = 2,
};

/* Length of the UTF-8 sequence at `in`, or 0 when it is not one (Go's utf8.DecodeRune: no surrogates, no overlong). */
static size_t sequence_length(const uint8_t *in, size_t left)
{
	uint8_t first = in[0];
	size_t length = first >= 0xc2 && first <= 0xdf ? 2 : (first & 0xf0) == 0xe0 ? 3 :
			first >= 0xf0 && first <= 0xf4 ? 4 : 0;
	if (length == 0 || left < length)
		return 0;
	uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
	uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
	if (in[1] < low || in[1] > high)
		return 0;
	for (size_t i = 2; i < length; i++)
		if ((in[i] & 0xc0) != 0x80)
			return 0;
	return length;
}

static uint8_t *put(uint8_t *out, const char *text, size_t length)
{
	memcpy(out, text, length);
	return out + length;
}

size_t json_escape(uint8_t *out, const uint8_t *in, size_t length)
{
	static const char hex[] = "0123456789abcdef";
	uint8_t *at = out;
	size_t i = 0;
	while (i < length) {
		size_t plain = i;
		while (plain < length && kinds[in[plain]] == 0)
			plain++;
		memcpy(at, in + i, plain - i);
		at += plain - i;
		i = plain;
		if (i == length)
			break;
		uint8_t kind = kinds[in[i]];
		if (kind == 2) {
			size_t sequence = sequence_length(in + i, length - i);
			if (sequence == 0) {
				at = put(at, "\\ufffd", 6);
				sequence = 1;
			} else if (sequence == 3 && in[i] == 0xe2 && in[i + 1] == 0x80 &&
				   (in[i + 2] == 0xa8 || in[i + 2] == 0xa9)) {
				at = put(at, in[i + 2] == 0xa8 ? "\\u2028" : "\\u2029", 6);
			} else {
				memcpy(at, in + i, sequence);
				at += sequence;
			}
			i += sequence;
			continue;
		}
		*at++ = '\\';
		if (kind == 1) {
			at = put(at, "u00", 3);
			*at++ = (uint8_t)hex[in[i] >> 4];
			*at++ = (uint8_t)hex[in[i] & 15];
		} else {
			*at++ = kind;
		}
		i++;
	}
	return (size_t)(at - out);
}

static void open_file(struct json_log *log)
{
	log->fd = open(log->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0640);
	struct stat info;
	log->size = log->fd >= 0 && fstat(log->fd, &info) == 0 ? (uint64_t)info.st_size : 0;
}

void json_log_open(struct json_log *log, const char *path, const char *attrs, uint64_t bytes_max,
		   unsigned files_max)
{
	memset(log, 0, sizeof *log);
	log->path = must_copy(path);
	log->attrs = must_copy(attrs);
	log->bytes_max = bytes_max;
	log->files_max = files_max;
	log->batch = malloc(LOG_BATCH);
	if (log->batch == NULL)
		abort();
	open_file(log);
}

static uint64_t count_lines(const uint8_t *bytes, size_t length)
{
	uint64_t count = 0;
	for (const uint8_t *at = bytes; (at = memchr(at, '\n', (size_t)(bytes + length - at))) != NULL; at++)
		count++;
	return count;
}

/* A short write leaves part of a line: it is cut off again, so that the file always consists of whole lines. */
static void flush(struct json_log *log)
{
	const uint8_t *at = log->batch;
	size_t left = log->batch_length;
	log->batch_length = 0;
	if (log->fd < 0 && left > 0)
		open_file(log);
	while (left > 0) {
		ssize_t n = log->fd < 0 ? -1 : write(log->fd, at, left);
		if (n < 0 && log->fd >= 0 && errno == EINTR)
			continue;
		if (n == (ssize_t)left) {
			log->size += left;
			return;
		}
		size_t whole = n > 0 ? (size_t)n : 0;
		while (whole > 0 && at[whole - 1] != '\n')
			whole--;
		log->dropped_lines += count_lines(at + whole, left - whole);
		if (n > 0) {
			log->size += whole;
			if (ftruncate(log->fd, (off_t)log->size) < 0)
				log->size += (uint64_t)n - whole;
		}
		return;
	}
}

static void rotate(struct json_log *log)
{
	if (log->files_max < 2) {
		if (log->fd >= 0 && ftruncate(log->fd, 0) == 0)
			log->size = 0;
		return;
	}
	size_t room = strlen(log->path) + 16;
	char *from = must_allocate(room), *to = must_allocate(room);
	for (unsigned i = log->files_max - 1; i >= 1; i--) {
		snprintf(to, room, "%s.%u", log->path, i);
		if (i == 1)
			snprintf(from, room, "%s", log->path);
		else
			snprintf(from, room, "%s.%u", log->path, i - 1);
		rename(from, to);
	}
	free(from);
	free(to);
	if (log->fd >= 0)
		close(log->fd);
	open_file(log);
}

static void put_line(struct json_log *log, int stream, const uint8_t *bytes, size_t length, const char *ending,
		     const char *time)
{
	if (log->bytes_max > 0 && log->size + log->batch_length >= log->bytes_max) {
		flush(log);
		if (log->size >= log->bytes_max)
			rotate(log);
	}
	size_t attrs = strlen(log->attrs);
	if (log->batch_length + length * 6 + attrs + 128 > LOG_BATCH)
		flush(log);
	if (length * 6 + attrs + 128 > LOG_BATCH) {
		log->dropped_lines++;
		return;
	}
	uint8_t *at = log->batch + log->batch_length;
	at = put(at, "{\"log\":\"", 8);
	at += json_escape(at, bytes, length);
	at = put(at, ending, strlen(ending));
	at = put(at, stream == 0 ? "\",\"stream\":\"stdout\"" : "\",\"stream\":\"stderr\"", 19);
	if (attrs > 0) {
		at = put(at, ",\"attrs\":", 9);
		at = put(at, log->attrs, attrs);
	}
	at = put(at, ",\"time\":\"", 9);
	at = put(at, time, strlen(time));
	at = put(at, "\"}\n", 3);
	log->batch_length = (size_t)(at - log->batch);
}

/* The whole line or a 16 KiB part of it: what was carried over from earlier reads and the span that follows. */
static void emit(struct json_log *log, int stream, const uint8_t *span, size_t length, int complete)
{
	struct log_line *line = &log->lines[stream];
	if (!line->partial)
		memcpy(line->time, log->now, sizeof line->time);
	if (line->length > 0) {
		if (length > 0)
			memcpy(line->bytes + line->length, span, length);
		length += line->length;
		span = line->bytes;
	}
	put_line(log, stream, span, length, complete ? "\\n" : "", line->time);
	line->length = 0;
	line->partial = !complete;
}

void json_log_write(struct json_log *log, int stream, const uint8_t *data, size_t length)
{
	struct log_line *line = &log->lines[stream];
	format_time(realtime_ns(), log->now);
	const uint8_t *at = data, *end = data + length;
	while (at < end) {
		size_t room = LOG_LINE_MAX - line->length;
		const uint8_t *newline = memchr(at, '\n', (size_t)(end - at));
		size_t span = (size_t)((newline != NULL ? newline : end) - at);
		if (span >= room) {
			emit(log, stream, at, room, 0);
			at += room;
		} else if (newline != NULL) {
			emit(log, stream, at, span, 1);
			at = newline + 1;
		} else {
			memcpy(line->bytes + line->length, at, span);
			line->length += span;
			at = end;
		}
	}
	flush(log);
}

void json_log_end(struct json_log *log, int stream)
{
	if (log->lines[stream].length == 0)
		return;
	format_time(realtime_ns(), log->now);
	emit(log, stream, NULL, 0, 0);
	flush(log);
}

void json_log_close(struct json_log *log)
{
	if (log->fd >= 0)
		close(log->fd);
	free(log->path);
	free(log->attrs);
	free(log->batch);
	log->fd = -1;
	log->path = log->attrs = NULL;
	log->batch = NULL;
}
