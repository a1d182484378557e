/**
 * Aligns columns as Go's text/tabwriter does with (minwidth 10, padding 3, spaces), which is what Docker's tables use:
 * a cell ends with a tab, the last cell of a line belongs to no column, and a column is a run of consecutive lines
 * that have a cell there: its width is that of the block, not of the whole text.
 */
export interface TabOptions {
  readonly minWidth: number;
  readonly padding: number;
}

const dockerTable: TabOptions = { minWidth: 10, padding: 3 };

export function alignColumns(text: string, options: TabOptions = dockerTable): string {
  const lines = text.split("\n").map((line) => line.split("\t"));
  const widths: number[][] = lines.map(() => []);
  measure(lines, widths, options);
  return lines
    .map((cells, index) =>
      cells
        .map((cell, column) => (column === cells.length - 1 ? cell : pad(cell, widths[index]![column]!)))
        .join(""),
    )
    .join("\n");
}

function measure(lines: readonly string[][], widths: number[][], options: TabOptions): void {
  const deepest = Math.max(...lines.map((cells) => cells.length - 1));
  for (let column = 0; column < deepest; column += 1) {
    let start = 0;
    while (start < lines.length) {
      if (lines[start]!.length - 1 <= column) {
        start += 1;
        continue;
      }
      let end = start;
      let width = options.minWidth;
      let empty = true;
      while (end < lines.length && lines[end]!.length - 1 > column) {
        const cell = [...lines[end]![column]!].length;
        if (cell > 0) empty = false;
        width = Math.max(width, cell + options.padding);
        end += 1;
      }
      // Column blocks nest: a wider block to the left does not break a block to the right, as Go's does not either.
      for (let line = start; line < end; line += 1)
        widths[line]![column] = empty ? Math.max(options.minWidth, options.padding) : width;
      start = end;
    }
  }
}

function pad(cell: string, width: number): string {
  return cell + " ".repeat(Math.max(0, width - [...cell].length));
}
