/** Lists of numbers in the kernel's form: `0-3,8,10-11`. Source: lib/vsprintf.c, format `%*pbl`. */

/** Numbers that one list may have. */
const COUNT_MAX = 1 << 20;

/** Prints a list; each run of rising numbers as a range. */
export function numberListText(numbers: readonly number[]): string {
  const parts: string[] = [];
  for (let at = 0; at < numbers.length; ) {
    let end = at;
    while (numbers[end + 1] === numbers[end]! + 1) end += 1;
    parts.push(end === at ? `${numbers[at]}` : `${numbers[at]}-${numbers[end]}`);
    at = end + 1;
  }
  return parts.join(",");
}

/** Reads a list; empty text is an empty list. @returns null when it is none, or too long */
export function parseNumberList(text: string): number[] | null {
  const numbers: number[] = [];
  if (text.trim() === "") return numbers;
  for (const part of text.split(",")) {
    const match = /^\s*(\d{1,10})(?:-(\d{1,10}))?\s*$/.exec(part);
    if (match === null) return null;
    const first = Number(match[1]);
    const last = Number(match[2] ?? match[1]);
    if (last < first || numbers.length + last - first >= COUNT_MAX) return null;
    for (let at = first; at <= last; at += 1) numbers.push(at);
  }
  return numbers;
}
