import { describe, expect, it } from "vitest";
import { runPolledDevice } from "./polled-device.ts";

const base = { cpus: 1, vms: 2, depth: 128, requestNs: 500 };

describe("a polled device", () => {
  it("serves what its CPUs can, however many VMs wait", () => {
    expect(runPolledDevice(base)).toBeCloseTo(2e6, -1);
    expect(runPolledDevice({ ...base, vms: 20 })).toBeCloseTo(2e6, -1);
    expect(runPolledDevice({ ...base, cpus: 4, vms: 8 }) / 8e6).toBeCloseTo(1, 3);
  });

  it("leaves CPUs idle that have no VM", () => {
    expect(runPolledDevice({ ...base, cpus: 4, vms: 2 }) / 4e6).toBeCloseTo(1, 3);
  });
});
