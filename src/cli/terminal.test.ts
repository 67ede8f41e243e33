import { describe, expect, it } from "vitest";
import { ProcessTerminal } from "./terminal.ts";

function terminalTo(isTTY: boolean) {
  const written = { stdout: "", stderr: "" };
  const stream = (name: "stdout" | "stderr") => ({
    isTTY,
    write: (text: string) => {
      written[name] += text;
    },
  });
  const terminal = new ProcessTerminal({
    stdout: stream("stdout"),
    stderr: stream("stderr"),
    env: {},
    now: () => 0,
  });
  return { terminal, written };
}

const HOSTILE = "a\u001b]0;title\u0007b\u202ec\u001b[2Jd\r\te\n";

describe("a terminal", () => {
  it("shows what an input would make it do as question marks, in notes everywhere", () => {
    const { terminal, written } = terminalTo(false);
    terminal.note(HOSTILE);
    expect(written.stderr).toBe("a?]0;title?b?c?[2Jd?\te\n\n");
  });

  it("keeps colours of a result, and nothing else that a terminal obeys", () => {
    const { terminal, written } = terminalTo(true);
    terminal.print(`\u001b[1mtitle\u001b[22m ${HOSTILE}`);
    expect(written.stdout).toBe("\u001b[1mtitle\u001b[22m a?]0;title?b?c?[2Jd?\te\n");
  });

  it("passes a result on as it is where no terminal reads it", () => {
    const { terminal, written } = terminalTo(false);
    terminal.print(HOSTILE);
    expect(written.stdout).toBe(HOSTILE);
  });
});
