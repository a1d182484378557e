#include "../frame.h"

#include <string.h>

#include "../shim.h"
#include "check.h"

/* Frames round trip; and whatever bytes come, the parsers stay within them (the sanitizers watch). */

void process_rename(const char *title)
{
	(void)title;
}

static void test_round_trip(void)
{
	struct frame frame;
	frame_begin(&frame, FRAME_START);
	frame_number(&frame, TAG_PID, 0x1122334455667788ull);
	frame_text(&frame, TAG_TEXT, "hello");
	frame_text(&frame, TAG_ID, "");
	frame_end(&frame);
	CHECK(frame_length(frame.bytes) == frame.length - 4);
	CHECK(frame.bytes[4] == FRAME_START);
	struct field_reader reader = { frame.bytes + 5, frame.bytes + frame.length };
	struct field field;
	uint64_t value;
	CHECK(next_field(&reader, &field) == 1 && field.tag == TAG_PID && field_number(&field, &value));
	CHECK(value == 0x1122334455667788ull);
	CHECK(next_field(&reader, &field) == 1 && field.length == 5 && !field_number(&field, &value));
	char *text = field_text(&field);
	CHECK(strcmp(text, "hello") == 0);
	free(text);
	CHECK(next_field(&reader, &field) == 1 && field.length == 0);
	text = field_text(&field);
	CHECK(text[0] == 0);
	free(text);
	CHECK(next_field(&reader, &field) == 0);
	frame_free(&frame);
}

static void test_bounds(void)
{
	const uint8_t zero[4] = { 0 }, large[4] = { 0, 0, 16, 1 }, most[4] = { 0, 0, 16, 0 };
	CHECK(frame_length(zero) == 0 && frame_length(large) == 0 && frame_length(most) == FRAME_MAX);
	/* A text that is too long is cut, the frame stays within its bound. */
	size_t size = FRAME_MAX + 1000;
	char *long_text = malloc(size);
	CHECK(long_text != NULL);
	memset(long_text, 'x', size - 1);
	long_text[size - 1] = 0;
	struct frame frame;
	frame_begin(&frame, FRAME_FAILED);
	frame_text(&frame, TAG_TEXT, long_text);
	frame_text(&frame, TAG_TEXT, long_text);
	frame_end(&frame);
	CHECK(frame_length(frame.bytes) == frame.length - 4);
	CHECK(fields_valid(frame.bytes + 5, frame.length - 5));
	frame_free(&frame);
	free(long_text);
	const uint8_t with_nul[] = { TAG_ID, 3, 0, 0, 0, 'a', 0, 'b' };
	struct field_reader reader = { with_nul, with_nul + sizeof with_nul };
	struct field field;
	CHECK(next_field(&reader, &field) == 1 && field_text(&field) == NULL);
}

static size_t valid_launch(uint8_t *out, size_t room)
{
	struct frame frame;
	frame_begin(&frame, FRAME_LAUNCH);
	frame_number(&frame, TAG_VERSION, 1);
	frame_text(&frame, TAG_ID, "abc");
	frame_text(&frame, TAG_RUN_DIR, "/run");
	frame_text(&frame, TAG_STATE_DIR, "/state");
	frame_text(&frame, TAG_LOWER_DIR, "/l1");
	frame_text(&frame, TAG_LOWER_DIR, "/l2");
	frame_text(&frame, TAG_UPPER_DIR, "/u");
	frame_text(&frame, TAG_WORK_DIR, "/w");
	frame_text(&frame, TAG_RUNTIME_PATH, "/r");
	frame_text(&frame, TAG_RUNTIME_ROOT, "/rr");
	frame_text(&frame, TAG_CGROUP_PATH, "/c/abc");
	frame_text(&frame, TAG_PORT, "tcp 0.0.0.0 80");
	frame_end(&frame);
	CHECK(frame.length - 5 <= room);
	memcpy(out, frame.bytes + 5, frame.length - 5);
	size_t length = frame.length - 5;
	frame_free(&frame);
	return length;
}

static void free_launch(struct launch *launch)
{
	struct text_list *lists[] = { &launch->lower_dirs, &launch->ports, &launch->runtime_arguments,
				      &launch->bind_sources, &launch->bind_targets };
	for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
		for (size_t k = 0; k < lists[i]->count; k++)
			free(lists[i]->items[k]);
		free(lists[i]->items);
	}
	char *texts[] = { launch->id,	      launch->run_dir,	     launch->state_dir,	   launch->upper_dir,
			  launch->work_dir,   launch->runtime_path,  launch->runtime_root, launch->log_path,
			  launch->log_attrs,  launch->cgroup_path };
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
		free(texts[i]);
}

static void test_launch(void)
{
	uint8_t bytes[1024];
	size_t length = valid_launch(bytes, sizeof bytes);
	struct launch launch;
	struct failure failure = { 0 };
	CHECK(launch_parse(&launch, bytes, length, &failure));
	CHECK(launch.lower_dirs.count == 2 && strcmp(launch.lower_dirs.items[1], "/l2") == 0);
	CHECK(strcmp(launch.cgroup_path, "/c/abc") == 0 && launch.ports.count == 1);
	free_launch(&launch);
	/* Every truncation, and a hundred thousand mutations, in memory of exactly that size. */
	unsigned long long state = 7;
	for (unsigned round = 0; round < 100000; round++) {
		size_t cut = round < length ? round : length;
		uint8_t *copy = malloc(cut > 0 ? cut : 1);
		CHECK(copy != NULL);
		memcpy(copy, bytes, cut);
		for (unsigned flips = round < length ? 0 : 1 + round % 4; flips > 0; flips--)
			copy[next_random(&state) % cut] = (uint8_t)next_random(&state);
		fields_valid(copy, cut);
		launch_parse(&launch, copy, cut, &failure);
		free_launch(&launch);
		free(copy);
	}
}

int main(void)
{
	test_round_trip();
	test_bounds();
	test_launch();
	puts("frame: ok");
	return 0;
}
