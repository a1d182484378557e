#include "frame.h"

#include <stdlib.h>
#include <string.h>

static uint32_t load_u32(const uint8_t *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void store_u32(uint8_t *at, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		at[i] = (uint8_t)(value >> (8 * i));
}

int next_field(struct field_reader *reader, struct field *field)
{
	size_t left = (size_t)(reader->end - reader->at);
	if (left == 0)
		return 0;
	if (left < 5)
		return -1;
	uint32_t length = load_u32(reader->at + 1);
	if (length > left - 5)
		return -1;
	*field = (struct field){ .tag = reader->at[0], .length = length, .bytes = reader->at + 5 };
	reader->at += 5 + (size_t)length;
	return 1;
}

bool fields_valid(const uint8_t *bytes, size_t length)
{
	struct field_reader reader = { bytes, bytes + length };
	struct field field;
	int more;
	while ((more = next_field(&reader, &field)) > 0)
		;
	return more == 0;
}

bool field_number(const struct field *field, uint64_t *value)
{
	if (field->length != 8)
		return false;
	*value = (uint64_t)load_u32(field->bytes) | (uint64_t)load_u32(field->bytes + 4) << 32;
	return true;
}

char *field_text(const struct field *field)
{
	if (field->length > 0 && memchr(field->bytes, 0, field->length) != NULL)
		return NULL;
	char *text = malloc((size_t)field->length + 1);
	if (text == NULL)
		abort();
	if (field->length > 0)
		memcpy(text, field->bytes, field->length);
	text[field->length] = 0;
	return text;
}

uint32_t frame_length(const uint8_t header[4])
{
	uint32_t length = load_u32(header);
	return length > FRAME_MAX ? 0 : length;
}

static uint8_t *extend(struct frame *frame, size_t more)
{
	if (frame->length + more > frame->room) {
		frame->room = (frame->length + more) * 2;
		frame->bytes = realloc(frame->bytes, frame->room);
		if (frame->bytes == NULL)
			abort();
	}
	uint8_t *at = frame->bytes + frame->length;
	frame->length += more;
	return at;
}

void frame_begin(struct frame *frame, enum frame_type type)
{
	*frame = (struct frame){ 0 };
	extend(frame, 5)[4] = (uint8_t)type;
}

void frame_bytes(struct frame *frame, enum field_tag tag, const void *bytes, size_t length)
{
	size_t left = FRAME_MAX - frame->length;
	if (left < 5)
		return;
	if (length > left - 5)
		length = left - 5;
	uint8_t *at = extend(frame, 5 + length);
	at[0] = (uint8_t)tag;
	store_u32(at + 1, (uint32_t)length);
	if (length > 0)
		memcpy(at + 5, bytes, length);
}

void frame_number(struct frame *frame, enum field_tag tag, uint64_t value)
{
	uint8_t bytes[8];
	store_u32(bytes, (uint32_t)value);
	store_u32(bytes + 4, (uint32_t)(value >> 32));
	frame_bytes(frame, tag, bytes, sizeof bytes);
}

void frame_text(struct frame *frame, enum field_tag tag, const char *text)
{
	frame_bytes(frame, tag, text, strlen(text));
}

void frame_end(struct frame *frame)
{
	store_u32(frame->bytes, (uint32_t)(frame->length - 4));
}

void frame_free(struct frame *frame)
{
	free(frame->bytes);
	*frame = (struct frame){ 0 };
}
