/** Help of `--format` where tables are the default. */
export const formatHelp = [
  "Shape of the output:",
  "'table':            A table with titles (default)",
  "'table TEMPLATE':   A table with the columns of a Go template",
  "'json':             One JSON object a line",
  "'TEMPLATE':         What a Go template makes of each item",
].join("\n");

/** Help of `--format` for inspect-like commands. */
export const inspectFormatHelp = [
  "Shape of the output:",
  "'json':             Print as JSON",
  "'TEMPLATE':         What a Go template makes of each item",
].join("\n");
