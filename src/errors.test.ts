import { describe, expect, it } from "vitest";
import { Errno, errnoName } from "./errno.ts";
import { AssertionError, assert, positionText, StackError, unreachable } from "./errors.ts";

describe("errors", () => {
  it("carry code, kind, position, hint and cause", () => {
    const cause = new Error("EACCES");
    const error = new StackError({
      code: "recording/unreadable",
      kind: "input",
      message: "trace.txt cannot be read",
      at: { file: "trace.txt" },
      hint: "check its permissions",
      cause,
    });
    expect(error).toMatchObject({ code: "recording/unreadable", kind: "input", cause });
    expect(error.message).toBe("trace.txt cannot be read");
  });

  it.each([
    [{ file: "a" }, "a"],
    [{ file: "a", line: 3 }, "a:3"],
    [{ file: "a", line: 3, column: 9 }, "a:3:9"],
    [{ file: "a", offset: 48 }, "a+0x30"],
  ])("print the position %j as %j", (at, text) => {
    expect(positionText(at)).toBe(text);
  });

  it("stop the program on a broken assumption", () => {
    expect(() => assert(false, "broken")).toThrow(AssertionError);
    expect(() => unreachable("x" as never)).toThrow("unhandled variant x");
  });
});

describe("errnoName", () => {
  it("names every number once", () => {
    for (const [name, number] of Object.entries(Errno)) expect(errnoName(number)).toBe(name);
    expect(errnoName(9999)).toBe("errno 9999");
  });
});
