import { describe, expect, it } from "vitest";
import { SimulatedKernel } from "../system/simulated-kernel.ts";
import { SimulatedSystem } from "../system/simulated-system.ts";
import { DeviceCustody } from "./custody.ts";

function make() {
  const system = new SimulatedSystem(new SimulatedKernel());
  const custody = new DeviceCustody(system, "d", system.listen("/d.sock", 1, "d"));
  return { system, custody, event: () => system.createEvent("came") };
}

describe("custody of a device", () => {
  it("says that some found no room, keeps the others, and lets go of all", () => {
    const { system, custody, event } = make();
    const kept = [512, 513, 514].map((number) => ({ number, end: 32 }));
    expect(custody.keep(kept, [event(), -1, event()], 0)).toBe(false);
    expect(custody.keptCount).toBe(2);
    const parts = [...custody.parts(64)].flatMap((part) => part.kept);
    expect(parts.map(({ number }) => number)).toEqual([512, 514]);
    custody.dispose();
    expect(system.ledger.open).toEqual([]);
  });

  it("ends what a number stood for before, also where the new one found no room", () => {
    const { system, custody, event } = make();
    expect(custody.keep([{ number: 512, end: 16 }], [event()], 0)).toBe(true);
    expect(custody.keep([{ number: 512, end: 32 }], [-1], 16)).toBe(false);
    expect(custody.keptCount).toBe(0);
    custody.dispose();
    expect(system.ledger.open).toEqual([]);
  });
});
