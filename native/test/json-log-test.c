#include "../json-log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

/* Escaping against a table and a slow second implementation; splitting and batching with every chunk size. */

static void escapes(const char *in, size_t length, const char *expected)
{
	uint8_t out[4096];
	size_t n = json_escape(out, (const uint8_t *)in, length);
	CHECK(n == strlen(expected));
	CHECK(memcmp(out, expected, n) == 0);
}

static void test_escape_table(void)
{
	escapes("plain", 5, "plain");
	escapes("", 0, "");
	escapes("a\tb\nc\rd", 7, "a\\u0009b\\nc\\rd");
	escapes("\"\\<>&", 5, "\\\"\\\\\\u003c\\u003e\\u0026");
	escapes("\0\x1f\x7f", 3, "\\u0000\\u001f\x7f");
	escapes("\xff\xfe", 2, "\\ufffd\\ufffd");
	escapes("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9, "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
	escapes("\xe2\x80\xa8\xe2\x80\xa9\xe2\x80\xaa", 9, "\\u2028\\u2029\xe2\x80\xaa");
	/* Surrogates, overlong forms, beyond U+10FFFF, cut short. */
	escapes("\xed\xa0\x80", 3, "\\ufffd\\ufffd\\ufffd");
	escapes("\xc0\x80\xe0\x9f\xbf", 5, "\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd");
	escapes("\xf4\x90\x80\x80", 4, "\\ufffd\\ufffd\\ufffd\\ufffd");
	escapes("\xe2\x82", 2, "\\ufffd\\ufffd");
	escapes("\xf0\x9f\x98", 3, "\\ufffd\\ufffd\\ufffd");
}

/* Each rune by arithmetic instead of by ranges. */
static size_t decode(const uint8_t *in, size_t left)
{
	static const unsigned least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t length = in[0] < 0x80 ? 1 : in[0] >> 5 == 6 ? 2 : in[0] >> 4 == 14 ? 3 : in[0] >> 3 == 30 ? 4 : 0;
	if (length == 0 || length > left)
		return 0;
	unsigned value = length == 1 ? in[0] : in[0] & (0x7fu >> length);
	for (size_t i = 1; i < length; i++) {
		if (in[i] >> 6 != 2)
			return 0;
		value = value << 6 | (in[i] & 63u);
	}
	return value < least[length] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000) ? 0 : length;
}

static size_t slow_escape(char *out, const uint8_t *in, size_t length)
{
	char *at = out;
	for (size_t i = 0; i < length;) {
		size_t n = decode(in + i, length - i);
		if (n == 0) {
			at += sprintf(at, "\\ufffd");
			i++;
		} else if (n == 1 && (in[i] == '\n' || in[i] == '\r' || in[i] == '"' || in[i] == '\\')) {
			at += sprintf(at, "\\%c", in[i] == '\n' ? 'n' : in[i] == '\r' ? 'r' : in[i]);
			i++;
		} else if (n == 1 && (in[i] < 32 || in[i] == '<' || in[i] == '>' || in[i] == '&')) {
			at += sprintf(at, "\\u%04x", in[i++]);
		} else if (n == 3 && memcmp(in + i, "\xe2\x80", 2) == 0 && (in[i + 2] & 0xfe) == 0xa8) {
			at += sprintf(at, "\\u202%c", in[i + 2] == 0xa8 ? '8' : '9');
			i += 3;
		} else {
			memcpy(at, in + i, n);
			at += n;
			i += n;
		}
	}
	return (size_t)(at - out);
}

static void test_escape_random(void)
{
	unsigned long long state = 88172645463325252ull;
	for (int round = 0; round < 200000; round++) {
		uint8_t in[48], fast[48 * 6];
		char slow[48 * 6 + 8];
		size_t length = next_random(&state) % sizeof in;
		for (size_t i = 0; i < length; i++) {
			unsigned long long r = next_random(&state);
			/* Mostly bytes that begin or continue sequences, so that whole ones turn up. */
			static const uint8_t likely[] = { 0xe2, 0x80, 0xa8, 0xc3, 0xa9, 0xf0, 0x9f, 0xed, 0xa0, 0xf4, 0x8f, 0xbf };
			in[i] = r % 3 == 0 ? (uint8_t)(r >> 8) : likely[(r >> 8) % sizeof likely];
		}
		size_t n = json_escape(fast, in, length);
		CHECK(n == slow_escape(slow, in, length));
		CHECK(memcmp(fast, slow, n) == 0);
	}
}

static char path[128];

static char *log_content(size_t *length)
{
	int fd = open(path, O_RDONLY);
	struct stat info;
	CHECK(fd >= 0 && fstat(fd, &info) == 0);
	char *text = malloc((size_t)info.st_size + 1);
	CHECK(text != NULL && read(fd, text, (size_t)info.st_size) == info.st_size);
	text[info.st_size] = 0;
	*length = (size_t)info.st_size;
	close(fd);
	return text;
}

/* The `log` members, put together, with the line ends they were given. */
static size_t logged_bytes(const char *text, char *out)
{
	char *at = out;
	for (const char *line = text; *line != 0; line = strchr(line, '\n') + 1) {
		CHECK(strncmp(line, "{\"log\":\"", 8) == 0);
		const char *from = line + 8, *to = strstr(from, "\",\"stream\":\"stdout\"");
		CHECK(to != NULL);
		for (; from < to; from++) {
			if (from[0] == '\\' && from[1] == 'n') {
				*at++ = '\n';
				from++;
			} else {
				*at++ = *from;
			}
		}
	}
	return (size_t)(at - out);
}

static void test_chunks(void)
{
	enum { TOTAL = 120000 };
	static char sent[TOTAL], got[TOTAL + 16];
	unsigned long long state = 42;
	for (size_t i = 0; i < TOTAL; i++)
		sent[i] = next_random(&state) % 3000 == 0 ? '\n' : (char)('a' + i % 26);
	for (size_t chunk = 1; chunk < 70000; chunk = chunk * 3 + 1) {
		unlink(path);
		struct json_log log;
		json_log_open(&log, path, "", 0, 1);
		for (size_t i = 0; i < TOTAL; i += chunk)
			json_log_write(&log, 0, (uint8_t *)sent + i, i + chunk < TOTAL ? chunk : TOTAL - i);
		json_log_end(&log, 0);
		CHECK(log.dropped_lines == 0);
		json_log_close(&log);
		size_t length;
		char *text = log_content(&length);
		CHECK(logged_bytes(text, got) == TOTAL && memcmp(got, sent, TOTAL) == 0);
		for (const char *line = text; *line != 0; line = strchr(line, '\n') + 1)
			CHECK(strcspn(line, "\n") < LOG_LINE_MAX + 128);
		free(text);
	}
}

static void test_short_lines_and_wide_bytes(void)
{
	/* The most that one read can become: empty lines, and bytes of six characters. */
	static uint8_t data[65536];
	for (int round = 0; round < 2; round++) {
		memset(data, round == 0 ? '\n' : 0xff, sizeof data);
		unlink(path);
		struct json_log log;
		json_log_open(&log, path, "{\"tag\":\"x\"}", 0, 1);
		json_log_write(&log, 1, data, sizeof data);
		json_log_end(&log, 1);
		CHECK(log.dropped_lines == 0);
		json_log_close(&log);
		size_t length, lines = 0;
		char *text = log_content(&length);
		for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++)
			lines++;
		CHECK(lines == (round == 0 ? sizeof data : sizeof data / LOG_LINE_MAX));
		free(text);
	}
}

static void test_without_file(void)
{
	struct json_log log;
	json_log_open(&log, "/no/such/directory/log", "", 0, 1);
	json_log_write(&log, 0, (const uint8_t *)"a\nb\nc", 5);
	CHECK(log.dropped_lines == 2);
	json_log_end(&log, 0);
	CHECK(log.dropped_lines == 3);
	json_log_close(&log);
}

int main(void)
{
	snprintf(path, sizeof path, "/tmp/skiff-json-log-test-%d", (int)getpid());
	test_escape_table();
	test_escape_random();
	test_chunks();
	test_short_lines_and_wide_bytes();
	test_without_file();
	unlink(path);
	puts("json-log: ok");
	return 0;
}
