#ifndef SKIFF_FRAME_H
#define SKIFF_FRAME_H

/*
 * The shim protocol's frames, docs/internals/shim-protocol.md. A frame is a little-endian u32 length, a type byte
 * and fields; the length counts type and fields. A field is a tag byte, a little-endian u32 length and bytes. Numbers
 * are eight bytes, little-endian. Unknown tags are skipped, so that either side may be the newer one.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROTOCOL_VERSION 1
#define FRAME_MAX (1024u * 1024u)

enum frame_type {
	/* First frame of a connection, from the daemon. */
	FRAME_LAUNCH = 1,
	FRAME_QUIT = 2,
	FRAME_OPEN_CONTROL = 3,
	FRAME_OPEN_ATTACH = 4,
	FRAME_OPEN_EXEC = 5,
	FRAME_ANNOUNCE = 6,
	/* On the control channel, from the daemon. */
	FRAME_START = 10,
	FRAME_SIGNAL = 11,
	FRAME_RESIZE = 12,
	FRAME_EXEC_RESIZE = 13,
	FRAME_ABANDON = 14,
	FRAME_ACK_EXIT = 15,
	FRAME_ACK_EXEC = 16,
	/* From the shim. */
	FRAME_READY = 64,
	FRAME_FAILED = 65,
	FRAME_OK = 66,
	FRAME_STARTED = 67,
	FRAME_START_FAILED = 68,
	FRAME_EXITED = 69,
	FRAME_STATUS = 70,
	FRAME_EXEC_STARTED = 71,
	FRAME_EXEC_FAILED = 72,
	FRAME_EXEC_EXITED = 73,
};

enum field_tag {
	TAG_VERSION = 1,
	TAG_SEQUENCE = 2,
	TAG_ID = 3,
	TAG_RUN_DIR = 4,
	TAG_STATE_DIR = 5,
	TAG_LOWER_DIR = 6,
	TAG_UPPER_DIR = 7,
	TAG_WORK_DIR = 8,
	TAG_FLAGS = 9,
	TAG_RUNTIME_PATH = 10,
	TAG_RUNTIME_ROOT = 11,
	TAG_RUNTIME_ARGUMENT = 12,
	TAG_LOG_PATH = 13,
	TAG_LOG_BYTES_MAX = 14,
	TAG_LOG_FILES_MAX = 15,
	TAG_LOG_ATTRS = 16,
	TAG_PORT = 17,
	TAG_CGROUP_PATH = 18,
	TAG_OOM_SCORE = 19,
	TAG_PID = 20,
	TAG_STARTED_NS = 21,
	TAG_FINISHED_NS = 22,
	TAG_EXIT_CODE = 23,
	TAG_OOM_KILLED = 24,
	TAG_DROPPED_LINES = 25,
	TAG_ERRNO = 26,
	TAG_STAGE = 27,
	TAG_TEXT = 28,
	TAG_ROOTFS = 29,
	TAG_STATE = 30,
	TAG_SIGNAL = 31,
	TAG_ROWS = 32,
	TAG_COLUMNS = 33,
	TAG_ARGUMENT = 34,
	TAG_ENVIRONMENT = 35,
	TAG_CWD = 36,
	TAG_UID = 37,
	TAG_GID = 38,
	TAG_EXTRA_GID = 39,
	TAG_CAP_BOUNDING = 40,
	TAG_CAP_EFFECTIVE = 41,
	TAG_CAP_PERMITTED = 42,
	TAG_CAP_INHERITABLE = 43,
	TAG_CAP_AMBIENT = 44,
	TAG_SECCOMP_PATH = 45,
	TAG_APPARMOR = 46,
	TAG_SHIM_PID = 47,
	TAG_BIND_SOURCE = 48,
	TAG_BIND_TARGET = 49,
};

/* TAG_FLAGS of LAUNCH. */
#define LAUNCH_VOLATILE 1u
#define LAUNCH_TERMINAL 2u
#define LAUNCH_OPEN_STDIN 4u
#define LAUNCH_STDIN_ONCE 8u
#define LAUNCH_LOG_JSON 16u
#define LAUNCH_HIDE_UNIFIED 32u
/* Only for the files of a container that does not run: binds are mounted, nothing is ever started. */
#define LAUNCH_FILES_ONLY 64u
#define LAUNCH_READONLY_ROOT 128u
/* systemd makes the cgroups. */
#define LAUNCH_SYSTEMD_CGROUP 256u
/* TAG_FLAGS of OPEN_ATTACH and OPEN_EXEC. */
#define STREAM_STDIN 1u
#define STREAM_STDOUT 2u
#define STREAM_STDERR 4u
#define EXEC_TERMINAL 16u
#define EXEC_OPEN_STDIN 32u
#define EXEC_NO_NEW_PRIVILEGES 64u

struct field {
	uint8_t tag;
	uint32_t length;
	const uint8_t *bytes;
};

struct field_reader {
	const uint8_t *at;
	const uint8_t *end;
};

/* The next field: 1, 0 at the end, -1 when the bytes are not fields. */
int next_field(struct field_reader *reader, struct field *field);

/* True when the whole is well formed. */
bool fields_valid(const uint8_t *bytes, size_t length);

/* A number field's value; false when it has not eight bytes. */
bool field_number(const struct field *field, uint64_t *value);

/* A NUL-terminated copy, or NULL when the field holds a NUL byte. The caller frees it. */
char *field_text(const struct field *field);

/* Length that a frame's first four bytes announce, or 0 when it is not between 1 and FRAME_MAX. */
uint32_t frame_length(const uint8_t header[4]);

/* A frame under construction; it grows as needed up to FRAME_MAX, beyond which text fields are cut. */
struct frame {
	uint8_t *bytes;
	size_t length;
	size_t room;
};

void frame_begin(struct frame *frame, enum frame_type type);
void frame_number(struct frame *frame, enum field_tag tag, uint64_t value);
void frame_bytes(struct frame *frame, enum field_tag tag, const void *bytes, size_t length);
void frame_text(struct frame *frame, enum field_tag tag, const char *text);
/* Writes the length in front; `bytes` and `length` are then what goes out. */
void frame_end(struct frame *frame);
void frame_free(struct frame *frame);

#endif
