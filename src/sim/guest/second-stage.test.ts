import { describe, expect, it } from "vitest";
import { DmaDirection } from "../../dma/direction.ts";
import { policyNamed } from "../../dma/policy.ts";
import { ScatterList } from "../../dma/scatterlist.ts";
import { CountingMeter } from "../../meter.ts";
import { buildGuestDma } from "./dma-path.ts";
import { SecondStage } from "./second-stage.ts";

function makeGuest(policy: string) {
  const meter = new CountingMeter();
  const host = new SecondStage({ guestPages: 4096, blockPages: 1, seed: 1, meter });
  const timer = { arm() {} };
  const dma = buildGuestDma({ policy: policyNamed(policy)!, cpus: 1, meter, timer, host });
  meter.reset();
  return { meter, host, device: dma.device };
}

/** Two runs of a guest's memory: five pages and three. */
const list = () =>
  new ScatterList([
    { pfn: 101, offset: 0, bytes: 5 * 4096 },
    { pfn: 301, offset: 0, bytes: 3 * 4096 },
  ]);

describe("second stage", () => {
  it("pins and maps what the guest maps, and nothing else", () => {
    const { meter, host, device } = makeGuest("strict+map");
    const buffer = list();
    expect(device.mapSg(buffer, DmaDirection.TO_DEVICE, 0, 0)).toBe(0);
    const [domain] = host.type1.domains;
    expect(meter.amount("pagePin")).toBe(8);
    const first = buffer.mapped[0]!.pfn;
    for (let page = 0; page < 8; page += 1) {
      expect(domain!.domain.iovaToPhys(first + page)).toBeGreaterThan(0);
    }
    device.unmapSg(buffer, 0, 0);
    expect(meter.amount("pageUnpin")).toBe(8);
    expect(domain!.domain.iovaToPhys(first)).toBe(-1);
    expect(host.type1.mappings.last()).toBeNull();
  });

  it("makes one call of the kernel for each request that maps and each mapping that goes", () => {
    const { meter, device } = makeGuest("strict+map");
    const buffer = list();
    device.mapSg(buffer, DmaDirection.TO_DEVICE, 0, 0);
    const maps = meter.amount("userCall");
    // Sent once, handled once, counted once.
    expect(meter.amount("requestMap")).toBe(maps);
    expect(maps).toBe(meter.amount("rangeInsert"));
    device.unmapSg(buffer, 0, 0);
    expect(meter.amount("userCall")).toBe(2 * maps);
  });

  it("leaves memory pinned while a lazy guest's UNMAP has not been carried over", () => {
    const { meter, device } = makeGuest("lazy-mq+map");
    const buffer = list();
    device.mapSg(buffer, DmaDirection.TO_DEVICE, 0, 0);
    device.unmapSg(buffer, 0, 0);
    expect(meter.amount("pageUnpin")).toBe(0);
    device.mapSg(list(), DmaDirection.TO_DEVICE, 0, 0);
    expect(meter.amount("pageUnpin")).toBe(8);
  });
});
