/**
 * Spans of numbers that may overlap, cut so that they do not: of those that share a number, the one
 * later in the list keeps it. That is how Linux reads VIOT ranges and IVRS entries.
 */

/** A span; both ends belong to it. */
export interface Span<Value> {
  readonly first: number;
  /** Inclusive. */
  readonly last: number;
  readonly value: Value;
}

/**
 * Cuts overlapping spans; O(n log n).
 *
 * @returns disjoint spans in ascending order; a span that is covered in its middle comes twice
 */
export function laterWins<Value>(spans: readonly Span<Value>[]): readonly Span<Value>[] {
  if (isAscending(spans)) return spans;
  const turned = [...spans].reverse();
  if (isAscending(turned)) return turned;
  const edges = [...new Set(spans.flatMap((span) => [span.first, span.last + 1]))];
  edges.sort((a, b) => a - b);
  const indexOf = new Map(edges.map((edge, index) => [edge, index]));
  const owner = new Int32Array(edges.length).fill(-1);
  // The first cell at or behind an index that nobody owns yet; paths are halved on the way.
  const free = Int32Array.from({ length: edges.length + 1 }, (_, index) => index);
  const nextFree = (from: number): number => {
    let cell = from;
    while (free[cell] !== cell) {
      free[cell] = free[free[cell]!]!;
      cell = free[cell]!;
    }
    return cell;
  };
  for (let index = spans.length - 1; index >= 0; index -= 1) {
    const span = spans[index]!;
    const end = indexOf.get(span.last + 1)!;
    for (let cell = nextFree(indexOf.get(span.first)!); cell < end; cell = nextFree(cell)) {
      owner[cell] = index;
      free[cell] = cell + 1;
    }
  }
  return joined(spans, edges, owner);
}

/** Whether each span lies behind the one before it. */
function isAscending(spans: readonly Span<unknown>[]): boolean {
  let last = -1;
  for (const span of spans) {
    if (span.first <= last) return false;
    last = span.last;
  }
  return true;
}

function joined<Value>(
  spans: readonly Span<Value>[],
  edges: readonly number[],
  owner: Int32Array,
): Span<Value>[] {
  const out: Span<Value>[] = [];
  let cell = 0;
  while (cell < edges.length - 1) {
    const index = owner[cell]!;
    let end = cell + 1;
    while (end < edges.length - 1 && owner[end] === index) end += 1;
    if (index >= 0) {
      out.push({ first: edges[cell]!, last: edges[end]! - 1, value: spans[index]!.value });
    }
    cell = end;
  }
  return out;
}
