import { describe, expect, it } from "vitest";
import { StackError } from "../../errors.ts";
import { check, exampleText, unwaivedOf } from "./checking.suite.ts";
import { RequestChecker } from "./request-checker.ts";
import { waiverOf } from "./waivers.ts";

const recorded = exampleText("virtio-iommu-requests.jsonl.gz");
const lines = recorded.split("\n");
const verify = (text: string) => check(new RequestChecker("requests"), text);

describe("recorded requests", () => {
  it("are answered as QEMU answered them, its departures waived by name", () => {
    const { tally } = verify(recorded);
    expect(tally.compared).toBe(2000);
    expect(tally.unwaived).toBe(0);
    expect(tally.matched).toBeGreaterThan(1800);
    for (const { name } of tally.waivers) expect(waiverOf(name)?.clause).toBeTruthy();
    for (const { waivedBy } of tally.divergences) expect(waivedBy).not.toBeNull();
  });

  it("diverge, and drag others with them, when the device does not depart as QEMU does", () => {
    const { tally } = check(new RequestChecker("requests", { quirks: [] }), recorded);
    expect(tally.unwaived).toBeGreaterThan(verify(recorded).tally.waived);
    expect(tally.waived).toBe(0);
  });

  it("diverge at the line whose status, length or reply was changed", () => {
    const at = lines.findIndex((line) => line.includes('"status": 6') && line.includes('"03'));
    const probe = lines.findIndex((line) => line.includes('"buf": "01001400'));
    const changed = [...lines];
    changed[at] = lines[at]!.replace('"status": 6', '"status": 3');
    changed[at + 1] = lines[at + 1]!.replace('"used_len": 4', '"used_len": 8');
    changed[probe] = lines[probe]!.replace("0000e0fe00000000", "0000e1fe00000000");
    const divergences = unwaivedOf(verify(changed.join("\n")));
    expect(divergences).toHaveLength(3);
    expect(divergences[0]).toMatch(new RegExp(`^${at + 1}: MAP .*: DEVERR in 4 bytes, NOENT`));
    expect(divergences[1]).toMatch(new RegExp(`^${at + 2}: .* in 8 bytes, .* in 4 bytes`));
    expect(divergences[2]).toMatch(
      new RegExp(
        `^${probe + 1}: PROBE .*: OK in 516 bytes, OK in 516 bytes, byte 10 of it differs`,
      ),
    );
  });

  it("of a peer that is not known depart from nothing", () => {
    const { tally } = verify(recorded.replace('"qemu": "11.1.3", ', ""));
    expect(tally.waived).toBe(0);
    expect(tally.unwaived).toBeGreaterThan(0);
  });

  it("start anew at every line that describes a device", () => {
    const { tally } = verify(`${recorded}${recorded}`);
    expect(tally.compared).toBe(4000);
    expect(tally.unwaived).toBe(0);
  });

  it("cannot stand before the device is described", () => {
    const thrown = (() => {
      try {
        verify(lines.slice(1).join("\n"));
      } catch (error) {
        return error;
      }
      return null;
    })();
    expect(thrown).toBeInstanceOf(StackError);
    expect(thrown).toMatchObject({ code: "recording/no-device-line", at: { line: 1 } });
  });

  it("of no known form are compared and printed raw", () => {
    const text = `${lines[0]}\n{"req": "", "tail": 4, "used_len": 4, "status": 0}\n{"req": "09aabb", "tail": 4, "used_len": 4, "status": 0}\n`;
    expect(unwaivedOf(verify(text))).toEqual([
      "2: 0 bytes : OK in 4 bytes, no answer",
      "3: 3 bytes 09aabb: OK in 4 bytes, no answer",
    ]);
  });
});
