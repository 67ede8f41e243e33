import { describe, expect, it } from "vitest";
import { openLinuxSystem } from "../system/linux-system.ts";
import { Poll } from "../system/poll-set.ts";
import { SimulatedKernel } from "../system/simulated-kernel.ts";
import { SimulatedSystem } from "../system/simulated-system.ts";
import { PollLoop } from "./poll-loop.ts";

function simulated() {
  const kernel = new SimulatedKernel();
  const system = new SimulatedSystem(kernel);
  const failures: string[] = [];
  const loop = new PollLoop(system, (name, error) => failures.push(`${name}: ${error}`));
  return { kernel, system, loop, failures };
}

describe("a poll loop", () => {
  it("serves what is ready, each once a turn", () => {
    const { system, loop } = simulated();
    const served: number[] = [];
    const events = [0, 1, 2].map(() => system.createEvent("test"));
    for (const [index, fd] of events.entries())
      loop.watch(fd, Poll.IN, () => served.push(index), `event ${index}`);
    system.signal(events[2]!);
    system.signal(events[0]!);
    loop.turn(0);
    expect(served).toEqual([0, 2]);
    loop.turn(0);
    expect(served).toEqual([0, 2, 0, 2]);
  });

  it("takes down how long each turn kept others waiting", async () => {
    const { kernel, system, loop } = simulated();
    const times: number[] = [];
    loop.turnTimes = { record: (us) => times.push(us) };
    const event = system.createEvent("test");
    const watch = loop.watch(
      event,
      Poll.IN,
      () => {
        kernel.now += 70;
        system.drain(event);
        loop.stop();
      },
      "slow",
    );
    system.signal(event);
    await loop.run();
    watch.close();
    expect(times).toEqual([70]);
  });

  it("reports what a handler throws, and serves the others", () => {
    const { system, loop, failures } = simulated();
    const events = [0, 1].map(() => system.createEvent("test"));
    let served = 0;
    loop.watch(
      events[0]!,
      Poll.IN,
      () => {
        throw new Error("broken");
      },
      "first",
    );
    loop.watch(
      events[1]!,
      Poll.IN,
      () => {
        served += 1;
      },
      "second",
    );
    for (const fd of events) system.signal(fd);
    loop.add(
      {
        dueUs: -1,
        work: () => {
          throw new Error("worse");
        },
      },
      "task",
    );
    loop.turn(0);
    expect(served).toBe(1);
    expect(failures).toEqual(["first: Error: broken", "task: Error: worse"]);
  });

  it("does not wait while a task has more, and gives each its turn", () => {
    const { kernel, loop } = simulated();
    const left = [3, 5];
    const worked: number[] = [];
    for (const [index] of left.entries()) {
      const work = () => {
        if (left[index] === 0) return false;
        worked.push(index);
        left[index]! -= 1;
        return left[index]! > 0;
      };
      loop.add({ dueUs: -1, work }, `task ${index}`);
    }
    for (let turn = 0; turn < 5; turn += 1) loop.turn(1000);
    expect(worked).toEqual([0, 1, 0, 1, 0, 1, 1, 1]);
    expect(kernel.now).toBe(1000);
  });

  it("wakes a task when it is due", () => {
    const { kernel, loop } = simulated();
    const task = { dueUs: 700, work: () => false };
    loop.add(task, "task");
    loop.turn(10_000);
    expect(kernel.now).toBe(700);
    task.dueUs = -1;
    loop.turn(10_000);
    expect(kernel.now).toBe(10_700);
  });

  it("takes watches of handlers that close themselves or others, and more than it had room for", () => {
    const { system, loop, failures } = simulated();
    const served: number[] = [];
    const fds = Array.from({ length: 100 }, () => system.createEvent("test"));
    const watches = fds.map((fd, index) =>
      loop.watch(
        fd,
        Poll.IN,
        () => {
          served.push(index);
          watches[index]!.close();
          watches[index + 1]?.close();
        },
        `event ${index}`,
      ),
    );
    for (const fd of fds) system.signal(fd);
    for (let turn = 0; turn < 3; turn += 1) loop.turn(0);
    expect(served).toEqual(Array.from({ length: 50 }, (_, index) => index * 2));
    loop.watch(fds[0]!, Poll.IN, () => served.push(-1), "again");
    watches[0]!.set(0);
    loop.turn(0);
    expect(served.at(-1)).toBe(-1);
    expect(failures).toEqual([]);
  });

  it("lets no watched descriptor starve another that never stops", () => {
    const { system, loop } = simulated();
    const events = [0, 1].map(() => system.createEvent("test"));
    const served = [0, 0];
    for (const [index, fd] of events.entries()) {
      system.signal(fd);
      loop.watch(
        fd,
        Poll.IN,
        () => {
          served[index]! += 1;
        },
        `event ${index}`,
      );
    }
    for (let turn = 0; turn < 100; turn += 1) loop.turn(0);
    expect(served).toEqual([100, 100]);
  });

  it("leaves nothing open", () => {
    const { system, loop } = simulated();
    loop.dispose();
    expect(system.ledger.open).toEqual([]);
  });
});

describe.skipIf(process.platform !== "linux")("a poll loop on Linux", () => {
  it("is stopped from a handler, and lets the event loop run meanwhile", async () => {
    const system = await openLinuxSystem();
    const loop = new PollLoop(system, () => {});
    setTimeout(() => {
      loop.stop();
    }, 20);
    await loop.run();
    expect(loop.turns).toBeGreaterThan(0);
    loop.dispose();
    expect(system.ledger.open).toEqual([]);
  });
});
