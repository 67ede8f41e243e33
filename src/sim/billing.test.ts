import { describe, expect, it } from "vitest";
import { StackError } from "../errors.ts";
import { Step } from "../meter.ts";
import { BillingMeter } from "./billing-meter.ts";
import { Cashier } from "./cashier.ts";
import { Engine } from "./engine.ts";
import { type Price, PriceList } from "./price-list.ts";
import { ServerPool } from "./server-pool.ts";

function price(step: Price["step"], on: string, eachNs: number, unitNs = 0, remoteUnitNs = 0) {
  return { step, on, eachNs, unitNs, remoteUnitNs, source: "test", fittedOn: null };
}

const list = new PriceList([
  price("iovaCacheHit", "cpu", 30),
  price("virtqueueAdd", "lock", 0, 100),
  price("virtqueueSync", "lock", 2000),
  price("entryRead", "walker", 0, 50, 70),
]);

describe("billing meter", () => {
  it("lists stretches in the order of the steps, those of one resource as one", () => {
    const meter = new BillingMeter(list);
    meter.step(Step.iovaCacheHit, 1, 0);
    meter.step(Step.virtqueueAdd, 3, 0);
    meter.step(Step.virtqueueSync, 3, 0);
    meter.step(Step.iovaCacheHit, 1, 0);
    const stretches = Array.from({ length: meter.count }, (_, index) => [
      list.resources[meter.resources[index]!],
      meter.times[index],
    ]);
    expect(stretches).toEqual([
      ["cpu", 30_000],
      ["lock", 2_300_000],
      ["cpu", 30_000],
    ]);
  });

  it("charges a remote place only to a payer of another node, and tells how much", () => {
    const meter = new BillingMeter(list);
    meter.payerNode = 1;
    meter.step(Step.entryRead, 4, 1);
    meter.step(Step.entryRead, 4, 0);
    expect(meter.charges()).toEqual([
      { step: "entryRead", times: 2, amount: 8, time: 680_000, remoteTime: 280_000 },
    ]);
    meter.payerNode = -1;
    meter.step(Step.entryRead, 1, 0);
    expect(meter.charges()[0]!.time).toBe(730_000);
  });

  it("shows a step without a price as free", () => {
    const meter = new BillingMeter(list);
    meter.step(Step.fault, 1, 0);
    expect(meter.count).toBe(0);
    expect(meter.charges()).toEqual([
      { step: "fault", times: 1, amount: 1, time: 0, remoteTime: 0 },
    ]);
  });
});

describe("price list", () => {
  it("refuses a price that is negative, no number, or given twice", () => {
    expect(() => new PriceList([price("fault", "cpu", -1)])).toThrow(StackError);
    expect(() => new PriceList([price("fault", "cpu", Number.NaN)])).toThrow(StackError);
    expect(() => new PriceList([price("fault", "cpu", 1), price("fault", "cpu", 2)])).toThrow(
      /given twice/,
    );
  });

  it("can be changed in single prices", () => {
    const cheaper = list.with([price("virtqueueSync", "lock", 0)]);
    expect(cheaper.eachPs[Step.virtqueueSync]).toBe(0);
    expect(cheaper.unitPs[Step.virtqueueAdd]).toBe(100_000);
    expect(list.eachPs[Step.virtqueueSync]).toBe(2_000_000);
  });
});

describe("cashier", () => {
  it("makes payers wait for a resource and not for their own CPU", () => {
    const engine = new Engine();
    const lock = new ServerPool(engine, 1);
    const cashier = new Cashier(engine, [null, lock, null]);
    const meter = new BillingMeter(list);
    const paid: number[][] = [];
    const done = engine.define((payer) => paid.push([payer, engine.now / 1000]));
    for (let payer = 0; payer < 3; payer += 1) {
      meter.step(Step.iovaCacheHit, 1, 0);
      meter.step(Step.virtqueueSync, 1, 0);
      cashier.pay(meter, done, payer);
    }
    engine.run();
    expect(paid).toEqual([
      [0, 2030],
      [1, 4030],
      [2, 6030],
    ]);
    expect(lock.use()).toMatchObject({ granted: 3, waited: 2, busyTime: 6_000_000 });
    expect(cashier.open).toBe(0);
  });

  it("pays an empty bill at once", () => {
    const engine = new Engine();
    const cashier = new Cashier(engine, [null]);
    let isPaid = false;
    const done = engine.define(() => {
      isPaid = true;
    });
    cashier.pay(new BillingMeter(list), done);
    engine.run();
    expect([isPaid, engine.now]).toEqual([true, 0]);
  });
});
