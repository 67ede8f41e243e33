import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { CheckedFrames, PlainSpace } from "./address-space.suite.ts";
import { AddressSpace } from "./address-space.ts";
import { contiguousFrames, type FrameSource, scatteredFrames } from "./frame-source.ts";
import { MemoryFile } from "./memory-file.ts";
import type { Backing } from "./vma.ts";

/** Around borders of 2 MiB and 1 GiB. */
const FIRST = 2 ** 18 - 700;
const WINDOW = 1400;
const at = (border: number) => fc.integer({ min: border - 8, max: border + 8 });
const vpn = fc.oneof(
  at(2 ** 18),
  at(2 ** 18 - 512),
  at(2 ** 18 + 512),
  fc.integer({ min: FIRST, max: FIRST + WINDOW }),
);
const pages = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 12 }) },
  { weight: 1, arbitrary: fc.integer({ min: 1, max: 1100 }) },
);
const range = { vpn, pages };
const flag = fc.boolean();

const what = fc.constantFrom("huge", "small", "shared", "io");
const mapping = fc.record({
  kind: fc.constant("mmap" as const),
  ...range,
  what,
  filePage: fc.integer({ min: 0, max: 1000 }),
  isReadable: fc.constantFrom(true, true, true, false),
  isWritable: fc.constantFrom(true, true, false),
});
const protect = { isReadable: flag, isWritable: flag };
const change = fc.constantFrom("discard" as const, "remove" as const, "migrate" as const);
const access = fc.constantFrom("touch" as const, "pin" as const, "pin" as const);
const operation = fc.oneof(
  { weight: 2, arbitrary: mapping },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("munmap" as const), ...range }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant("mprotect" as const), ...range, ...protect }),
  },
  { weight: 3, arbitrary: fc.record({ kind: change, ...range }) },
  { weight: 8, arbitrary: fc.record({ kind: access, ...range, isWrite: flag }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("unpin" as const),
      which: fc.nat(),
      part: fc.nat(),
      isDirty: flag,
    }),
  },
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

const sources: Record<string, () => FrameSource> = {
  contiguous: () => contiguousFrames({ basePfn: 5 * 512, pages: 20_000 }),
  scattered: () => scatteredFrames({ basePfn: 512, pages: 20_000, unitPages: 1, seed: 3 }),
  "2 MiB units": () => scatteredFrames({ basePfn: 512, pages: 20_480, unitPages: 512, seed: 4 }),
  "3 page units": () => scatteredFrames({ basePfn: 513, pages: 20_000, unitPages: 3, seed: 5 }),
};

function backingOf(what: string, file: MemoryFile, filePage: number): Backing {
  if (what === "shared") return { kind: "file", file, filePage, isShared: true };
  if (what === "io") return { kind: "io" };
  return { kind: "anonymous", isHuge: what === "huge" };
}

function apply(plain: PlainSpace, file: MemoryFile, step: Operation): void {
  const { space } = plain;
  switch (step.kind) {
    case "mmap": {
      const backing = backingOf(step.what, file, step.filePage);
      const { isReadable, isWritable, filePage } = step;
      expect(space.mmap({ ...step, backing })).toBe(Errno.OK);
      const kind = backing.kind === "file" ? "shared" : backing.kind === "io" ? "io" : "anonymous";
      plain.mmap(step.vpn, step.pages, { kind, isReadable, isWritable, filePage });
      return;
    }
    case "munmap":
      expect(space.munmap(step.vpn, step.pages)).toBe(Errno.OK);
      plain.munmap(step.vpn, step.pages);
      return;
    case "mprotect": {
      const { isReadable, isWritable } = step;
      const errno = space.mprotect(step.vpn, step.pages, isReadable, isWritable);
      expect(errno).toBe(plain.mprotect(step.vpn, step.pages, isReadable, isWritable));
      return;
    }
    case "discard":
      expect(space.discard(step.vpn, step.pages)).toBe(plain.discard(step.vpn, step.pages));
      return;
    case "remove":
      expect(space.remove(step.vpn, step.pages)).toBe(plain.remove(step.vpn, step.pages));
      return;
    case "migrate":
      migrate(plain, step.vpn, step.pages);
      return;
    case "touch": {
      let expected: number = Errno.OK;
      for (let at = step.vpn; at < step.vpn + step.pages && expected === Errno.OK; at += 1)
        expected = plain.touchErrno(at, step.isWrite);
      expect(space.touch(step.vpn, step.pages, step.isWrite)).toBe(expected);
      plain.learn(false);
      return;
    }
    case "pin":
      plain.pinRun(step.vpn, step.pages, step.isWrite);
      return;
    case "unpin":
      plain.unpin(step.which, step.part, step.isDirty);
  }
}

/** What is pinned stays, everything else gets another frame. */
function migrate(plain: PlainSpace, first: number, count: number): void {
  const before = new Map<number, number>();
  for (let at = first; at < first + count; at += 1) before.set(at, plain.space.frameAt(at));
  const shared = new Map([...plain.filePages].map(([page, pfn]) => [pfn, page]));
  plain.space.migrate(first, count);
  for (const [at, pfn] of before) {
    if (pfn <= 0) continue;
    const isPinned = plain.pins.has(pfn);
    if (isPinned) expect(plain.space.frameAt(at)).toBe(pfn);
    // A page that the file shows twice may have moved back.
    else if (!shared.has(pfn)) expect(plain.space.frameAt(at)).not.toBe(pfn);
  }
  plain.learn(true);
}

describe("the memory of a process", () => {
  for (const [name, create] of Object.entries(sources)) {
    it(`is what a plain table of pages says, with frames that are ${name}`, () => {
      fc.assert(
        fc.property(what, fc.array(operation, { minLength: 5, maxLength: 30 }), (first, steps) => {
          const frames = new CheckedFrames(create());
          const file = new MemoryFile({ pages: 1500 });
          const space = new AddressSpace({ frames });
          const plain = new PlainSpace(space, frames, file);
          const all = { vpn: FIRST, pages: WINDOW, what: first, filePage: 0 };
          const rights = { isReadable: true, isWritable: true };
          for (const step of [{ kind: "mmap" as const, ...all, ...rights }, ...steps]) {
            // What is cached of the place must not outlive the change.
            const isChange = "vpn" in step && step.kind !== "pin" && step.kind !== "touch";
            if (isChange) plain.pinRun(step.vpn, 1, true);
            apply(plain, file, step);
            plain.learn(false);
            if (isChange) plain.pinRun(step.vpn, 2, true);
            plain.learn(false);
            plain.check();
          }
        }),
        { numRuns: 40 },
      );
    });
  }
});
