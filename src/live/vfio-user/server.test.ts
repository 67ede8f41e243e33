/** The server as a client finds it: one statement of the vfio-user reference (U…) after another. */
import { afterEach, describe, expect, it } from "vitest";
import { hexOf, join, message, pack, text, unhex } from "./client.suite.ts";
import { QEMU_JSON, World, type WorldOptions } from "./world.suite.ts";

const EINVAL = 22;
const ENOENT = 2;
let world = new World();
const open = (options: WorldOptions = {}) => {
  world = new World(options);
  return world.negotiate();
};
const connect = () => {
  world = new World();
  return world.connect();
};
afterEach(() => world.end());

describe("VERSION", () => {
  it("answers QEMU's request with major 0 and capabilities within its length (U20, U22, U23, U24)", () => {
    const client = connect();
    const request = message(1, join(pack([2, 0], [2, 0]), text(QEMU_JSON)));
    expect(request.length).toBe(214);
    const answer = client.version(QEMU_JSON);
    expect(answer.errno).toBe(0);
    expect(answer.payload.length + 16).toBeLessThanOrEqual(214);
    expect([answer.view.getUint16(0, true), answer.view.getUint16(2, true)]).toEqual([0, 0]);
    const json = new TextDecoder().decode(answer.payload.subarray(4));
    expect(json.indexOf("\0")).toBe(json.length - 1);
    expect(JSON.parse(json.slice(0, -1)).capabilities).toEqual({
      max_msg_fds: 16,
      max_data_xfer_size: 1_048_576,
      max_dma_maps: 65_535,
      pgsizes: 4096,
      write_multiple: false,
    });
  });

  it("answers the smaller minor version (U20)", () => {
    expect(connect().version(undefined, 0, 2).view.getUint16(2, true)).toBe(0);
  });

  it("refuses another major version, and nothing is negotiated (U21)", () => {
    const client = connect();
    expect(client.version("{}", 999).errno).toBe(EINVAL);
    expect(client.errno(4, pack([4, 16], [4, 0], [4, 0], [4, 0]))).toBe(EINVAL);
  });

  const accepted = [
    undefined,
    "{}",
    '{"capabilities":{}}',
    '{"capabilities":{"max_msg_fds":1024,"max_data_xfer_size":1048576}}',
    '{"capabilities":{"max_msg_fds":0}}',
    '{"capabilities":{"twin_socket":{"supported":true},"unheard_of":[1,{"a":null}]}}',
    '{"capabilities":{"text":"a \\" brace } and : colon"}}',
    '{"__proto__":{"capabilities":1},"capabilities":{"__proto__":{"max_msg_fds":"x"}}}',
    QEMU_JSON,
  ];
  it.each(accepted)("accepts %s (U26)", (json) => {
    expect(connect().version(json).errno).toBe(0);
  });

  const refused = [
    "{",
    '"',
    "",
    "null",
    "[]",
    "7",
    "{} {}",
    '{"capabilities":"x"}',
    '{"capabilities":[]}',
    '{"capabilities":null}',
    '{"capabilities":{"max_msg_fds":"2"}}',
    '{"capabilities":{"max_msg_fds":-1}}',
    '{"capabilities":{"max_msg_fds":1025}}',
    '{"capabilities":{"max_msg_fds":1.5}}',
    '{"capabilities":{"max_data_xfer_size":0}}',
    '{"capabilities":{"max_data_xfer_size":-4096}}',
    '{"capabilities":{"max_data_xfer_size":9007199254740992}}',
    '{"capabilities":{"max_data_xfer_size":1e400}}',
    '{"capabilities":{"pgsizes":4095}}',
    '{"capabilities":{"write_multiple":1}}',
    '{"capabilities":{"migration":"x"}}',
    '{"capabilities":{"migration":{"pgsize":"4096"}}}',
    '{"capabilities":{"migration":{"pgsize":4095}}}',
    '{"capabilities":{"max_msg_fds":1,"max_msg_fds":2}}',
    '{"capabilities":{"max_msg_fds":1,"max\\u005fmsg_fds":2}}',
    `{"a":${"[".repeat(9)}${"]".repeat(9)}}`,
    `{"a":"${"x".repeat(20_000)}"}`,
    '{"a":1}\0',
  ];
  it.each(refused.map((json) => [json.slice(0, 70), json]))(
    "refuses %s (U26, U27, U161)",
    (_, json) => {
      const client = connect();
      expect(client.version(json).errno).toBe(EINVAL);
      expect(client.errno(13)).toBe(EINVAL);
    },
  );

  it("refuses text without its zero byte, and text that is not UTF-8 (U26, U27)", () => {
    const bytes = new TextEncoder().encode("{}");
    expect(connect().errno(1, join(pack([4, 0]), bytes))).toBe(EINVAL);
    world.end();
    expect(connect().errno(1, join(pack([4, 0]), unhex("7b22ff223a317d00")))).toBe(EINVAL);
  });

  it("refuses a megabyte of nested brackets without harm (U27, U161)", () => {
    const client = connect();
    expect(client.errno(1, join(pack([4, 0]), text("[".repeat(100_000))))).toBe(EINVAL);
  });

  it("with a descriptor is refused, and the descriptor closed (U28, U18)", () => {
    const client = connect();
    const fds = [world.event()];
    expect(client.errno(1, pack([4, 0]), { fds })).toBe(EINVAL);
    expect(client.version().errno).toBe(0);
  });

  it("comes once: later ones change nothing (U17, U156)", () => {
    const client = open();
    expect(client.version('{"capabilities":{"max_data_xfer_size":4096}}').errno).toBe(EINVAL);
    expect(client.read(0, 0, 8192).errno).toBe(0);
  });

  it("has to come first (U17)", () => {
    const client = connect();
    for (const command of [2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 15, 16]) {
      expect(client.errno(command, new Uint8Array(40))).toBe(EINVAL);
    }
    expect([world.function.resets, world.function.log]).toEqual([0, []]);
    expect(client.version().errno).toBe(0);
  });
});

describe("headers", () => {
  it("an errno is a reply of 16 bytes with the error flag and the request's id (U7, U8)", () => {
    const client = open();
    client.sendRaw(unhex("0b000e00 10000000 00000000 00000000"));
    const answer = client.next()!;
    expect([answer.id, answer.command, answer.flags, answer.errno]).toEqual([11, 14, 0x21, 22]);
    expect(answer.payload.length).toBe(0);
    expect(hexOf(client.read(7, 0, 4).payload.subarray(16))).toBe("f41a5710");
  });

  it.each([0, 11, 12, 14, 17, 18, 19, 31, 32, 999, 65_535])(
    "command %i is EINVAL, and the next is heard (U16)",
    (command) => {
      const client = open();
      expect(client.errno(command, new Uint8Array(24))).toBe(EINVAL);
      expect(client.errno(command)).toBe(EINVAL);
      expect(client.read(7, 0, 4).errno).toBe(0);
    },
  );

  it("a header alone is EINVAL for everything but a reset (U15)", () => {
    const client = open();
    for (const command of [2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 16]) {
      expect(client.errno(command)).toBe(EINVAL);
    }
    expect(client.errno(13)).toBe(0);
  });

  it.each([0, 8, 15, 1_048_609, 0x1000_0000, 0xffff_ffff])(
    "a size of %i is EINVAL and the end (U13, U14, U138, U165)",
    (size) => {
      const client = open();
      expect(client.errno(13, undefined, { size })).toBe(EINVAL);
      expect(client.next()).toBe(null);
      expect(client.isOpen).toBe(false);
      expect(world.server.connection).toBe(null);
    },
  );

  it("the largest message is taken, and its reply is of this size too (U14)", () => {
    const client = open();
    const count = 2 ** 20;
    const bytes = message(10, join(pack([8, 0], [4, 0], [4, count]), new Uint8Array(count)), {
      id: 5,
    });
    expect(bytes.length).toBe(1_048_608);
    client.sendAll(bytes);
    const answer = client.next()!;
    expect([answer.id, answer.errno]).toEqual([5, EINVAL]);
    expect(client.isOpen).toBe(true);
  });

  it("a type that is neither command nor reply is EINVAL and the end (U11, U138)", () => {
    const client = open();
    client.send(13, undefined, { flags: 2, id: 9 });
    expect(client.next()).toMatchObject({ id: 9, errno: EINVAL });
    expect(client.next()).toBe(null);
    expect(client.isOpen).toBe(false);
  });

  it("flags that nobody knows are not looked at (U11)", () => {
    const client = open();
    expect(client.errno(13, undefined, { flags: 0xffff_ffc0 })).toBe(0);
  });

  it("an error flag and an errno in a command mean nothing (U9)", () => {
    const client = open();
    expect(client.errno(13, undefined, { flags: 0x20 })).toBe(0);
  });

  it("a reply to nothing is counted and dropped with its descriptors (U12, U104, U159, U160)", () => {
    const client = open();
    client.send(11, new Uint8Array(24), { flags: 1, fds: [world.event()] });
    client.send(9, new Uint8Array(24), { flags: 0x21 });
    expect(client.next()).toBe(null);
    expect(world.server.connection?.counts.strayReplies).toBe(2);
    expect(client.read(7, 0, 4).errno).toBe(0);
  });

  it("ids may repeat, fall and collide: each reply has its own (U7, U158)", () => {
    const client = open();
    for (const id of [9, 9, 3, 0xffff, 0, 9]) client.send(13, undefined, { id });
    expect(client.drain().map(({ id }) => id)).toEqual([9, 9, 3, 0xffff, 0, 9]);
  });

  it("a command that wants no reply gets none, neither for success nor for failure (U10)", () => {
    const client = open();
    client.post(0, 0, pack([4, 7]));
    client.post(0, 0x4000, pack([4, 7]));
    client.send(13, undefined, { flags: 0x10 });
    client.send(999, new Uint8Array(8), { flags: 0x10 });
    client.send(9, pack([8, 0], [4, 0], [4, 4]), { flags: 0x10 });
    expect(client.next()).toBe(null);
    expect(world.function.log).toEqual(["0 0 7,0,0,0"]);
    expect(world.server.connection?.counts.posted).toBe(5);
  });
});

describe("descriptors", () => {
  it.each([1, 3, 4, 5, 6, 7, 9, 10, 13, 15, 16, 0, 999])(
    "with command %i, which takes none, are closed (U18)",
    (command) => {
      const client = open();
      const before = world.system.ledger.descriptorCount;
      const fds = [world.event(), world.event()];
      expect(client.errno(command, new Uint8Array(32), { fds })).toBe(EINVAL);
      expect(world.system.ledger.descriptorCount).toBe(before);
    },
  );

  it("with a malformed header are closed (U18)", () => {
    const client = open();
    client.send(2, new Uint8Array(32), { size: 7, fds: [world.event()] });
    client.drain();
    expect(world.server.connection).toBe(null);
  });

  it("beyond what a message may carry are closed at once, all of them (U143)", () => {
    const client = open();
    const before = world.system.ledger.descriptorCount;
    const fds = Array.from({ length: 253 }, () => world.event());
    expect(client.setIrqs(0x24, 2, 0, 4, { fds })).toBe(EINVAL);
    expect(world.system.ledger.descriptorCount).toBe(before);
  });

  it("that were lost on the way fail the message, and the rest is closed (U19, U143)", () => {
    const client = open();
    const simulated = world.kernel;
    const fds = [world.event(), world.event(), world.event()];
    simulated.descriptorsMax = world.system.ledger.descriptorCount + 1;
    expect(client.setIrqs(0x24, 2, 0, 3, { fds })).toBe(EINVAL);
    simulated.descriptorsMax = 1024;
    expect(client.setIrqs(0x24, 2, 0, 3, { fds })).toBe(0);
  });
});

describe("device information", () => {
  it("is that of a PCI device that can be reset: 9 regions, 5 interrupt indexes (U55, U57)", () => {
    const client = open();
    client.sendRaw(
      unhex("04000400 20000000 00000000 00000000 10000000 00000000 00000000 00000000"),
    );
    const { id, payload } = client.next()!;
    expect(id).toBe(4);
    expect(hexOf(payload)).toBe("10000000030000000900000005000000");
  });

  it("is refused to a short payload and a short argsz, and not to a long one (U56)", () => {
    const client = open();
    expect(client.errno(4, pack([4, 16], [4, 0]))).toBe(EINVAL);
    expect(client.errno(4, pack([4, 8], [4, 0], [4, 0], [4, 0]))).toBe(EINVAL);
    const { payload } = client.ask(4, pack([4, 32], [4, 0], [4, 0], [4, 0]));
    expect(hexOf(payload)).toBe("10000000030000000900000005000000");
  });

  const regionInfo = (index: number, argsz = 32) =>
    pack([4, argsz], [4, 0], [4, index], [4, 0], [8, 0], [8, 0]);
  it("of config space is read, write, its size (U64)", () => {
    const client = open();
    const { payload } = client.ask(5, regionInfo(7));
    expect(hexOf(payload)).toBe(hexOf(pack([4, 32], [4, 3], [4, 7], [4, 0], [8, 256], [8, 0])));
  });

  it("of a region that is not there is size 0 without a flag or a descriptor (U63)", () => {
    const client = open();
    for (const index of [3, 4, 5, 6, 8]) {
      const answer = client.ask(5, regionInfo(index));
      expect(hexOf(answer.payload)).toBe(
        hexOf(pack([4, 32], [4, 0], [4, index], [8, 0], [8, 0], [4, 0])),
      );
      expect(answer.fds).toEqual([]);
    }
  });

  it("of an index beyond, or with a short argsz or payload, is EINVAL (U58, U59)", () => {
    const client = open();
    for (const index of [9, 10, 0xffff_ffff])
      expect(client.errno(5, regionInfo(index))).toBe(EINVAL);
    expect(client.errno(5, regionInfo(0, 8))).toBe(EINVAL);
    expect(client.errno(5, regionInfo(0).subarray(0, 24))).toBe(EINVAL);
  });

  it("of a region has argsz 32 however large the question's is (U59, U61)", () => {
    const client = open();
    const answer = client.ask(5, join(regionInfo(0, 80), new Uint8Array(3)));
    expect(answer.view.getUint32(0, true)).toBe(32);
    expect(answer.payload.length).toBe(32);
  });

  it("of interrupts: MSI-X has the function's vectors, by event descriptor (U70, U71, U72)", () => {
    const client = open();
    const counts = [0, 1, 2, 3, 4].map((index) => {
      const { view } = client.ask(7, pack([4, 16], [4, 0], [4, index], [4, 0]));
      expect(view.getUint32(4, true)).toBe(1);
      return view.getUint32(12, true);
    });
    expect(counts).toEqual([0, 0, 4, 1, 1]);
    expect(client.ask(7, pack([4, 32], [4, 0], [4, 2], [4, 0])).view.getUint32(0, true)).toBe(16);
    for (const index of [5, 0xffff_ffff]) {
      expect(client.errno(7, pack([4, 16], [4, 0], [4, index], [4, 0]))).toBe(EINVAL);
    }
    expect(client.errno(7, pack([4, 8], [4, 0], [4, 2], [4, 0]))).toBe(EINVAL);
    expect(client.errno(7, pack([4, 16], [4, 0]))).toBe(EINVAL);
  });

  it("of doorbell descriptors: none, and the ways to ask wrongly (U68)", () => {
    const client = open();
    const ask = (argsz: number, flags: number, index: number, count: number) =>
      pack([4, argsz], [4, flags], [4, index], [4, count]);
    expect(hexOf(client.ask(6, ask(16, 0, 0, 0)).payload)).toBe(hexOf(ask(16, 0, 0, 0)));
    expect(hexOf(client.ask(6, ask(400, 0, 0, 0)).payload)).toBe(hexOf(ask(16, 0, 0, 0)));
    for (const wrong of [
      ask(16, 1, 0, 0),
      ask(16, 0, 0, 1),
      ask(15, 0, 0, 0),
      ask(2 ** 20 + 1, 0, 0, 0),
    ]) {
      expect(client.errno(6, wrong)).toBe(EINVAL);
    }
    for (const index of [3, 9, 200]) expect(client.errno(6, ask(16, 0, index, 0))).toBe(EINVAL);
  });

  it("of features: none can be got, set or probed (U110)", () => {
    const client = open();
    for (const flags of [0x1_0001, 0x2_0002, 0x5_0001, 0x4_0006, 0, 0xffff_ffff]) {
      expect(client.errno(16, pack([4, 8], [4, flags], [8, 0]))).toBe(EINVAL);
    }
  });
});

describe("region accesses", () => {
  it("read what is there, echoing where (U89, U90)", () => {
    const client = open();
    client.sendRaw(
      unhex("09000900 20000000 00000000 00000000 00000000 00000000 07000000 04000000"),
    );
    const answer = client.next()!;
    expect(answer.flags).toBe(1);
    expect(hexOf(answer.payload)).toBe("00000000000000000700000004000000f41a5710");
    expect(client.read(7, 0, 256).payload.length).toBe(16 + 256);
  });

  it("write, and say how much (U83, U84)", () => {
    const client = open();
    for (const bytes of [1, 2, 4, 8]) {
      const data = new Uint8Array(bytes).fill(bytes);
      const { payload } = client.write(0, 8 * bytes, data);
      expect(hexOf(payload)).toBe(hexOf(pack([8, 8 * bytes], [4, 0], [4, bytes])));
      expect(client.read(0, 8 * bytes, bytes).payload.subarray(16)).toEqual(data);
    }
    expect(world.function.log.length).toBe(4);
  });

  it("posted before a read have taken effect when it is answered (U83)", () => {
    const client = open();
    for (let value = 0; value < 50; value += 1) client.post(0, 16, pack([4, value]));
    expect(client.read(0, 16, 4).view.getUint32(16, true)).toBe(49);
  });

  it("of no bytes succeed without the function hearing of it (U85)", () => {
    const client = open();
    world.function.onAccess = () => {
      throw new Error("the function is left alone");
    };
    expect(client.read(0, 0x4000, 0).payload.length).toBe(16);
    expect(client.write(0, 0, new Uint8Array(0)).errno).toBe(0);
    expect(world.server.failures).toBe(0);
  });

  it("outside a region, or beyond it, or of too many bytes are EINVAL (U86, U88, U157)", () => {
    const client = open();
    const wrong: [number, number | bigint, number][] = [
      [9, 0, 4],
      [0xffff_ffff, 0, 4],
      [3, 0, 4],
      [6, 0, 1],
      [0, 0x4001, 0],
      [0, 0x3fff, 2],
      [0, 0xffff_ffff_ffff_ffffn, 1],
      [0, 0xffff_ffff_ffff_ffffn, 256],
      [0, 0x8000_0000_0000_0000n, 4],
      [0, 0, 2 ** 20 + 8],
      [0, 0, 0xffff_ffff],
    ];
    for (const [region, offset, count] of wrong) {
      expect(client.read(region, offset, count).errno).toBe(EINVAL);
      if (count > 2 ** 20) continue;
      expect(client.write(region, offset, new Uint8Array(count)).errno).toBe(EINVAL);
    }
    expect(world.function.log).toEqual([]);
  });

  it("without the right are EPERM (U88)", () => {
    const client = open();
    expect(client.write(1, 0, pack([4, 1])).errno).toBe(1);
    expect(client.read(1, 0, 4).errno).toBe(0);
  });

  it("with a payload that is short, or not as long as it says, are EINVAL (U87)", () => {
    const client = open();
    expect(client.errno(9, new Uint8Array(8))).toBe(EINVAL);
    expect(client.errno(10, new Uint8Array(8))).toBe(EINVAL);
    expect(client.errno(10, join(pack([8, 0], [4, 0], [4, 4]), new Uint8Array(3)))).toBe(EINVAL);
    expect(client.errno(10, join(pack([8, 0], [4, 0], [4, 4]), new Uint8Array(5)))).toBe(EINVAL);
    expect(client.errno(9, join(pack([8, 0], [4, 0], [4, 4]), new Uint8Array(5)))).toBe(0);
  });

  it("are limited to what the client said it takes (U86, U100)", () => {
    world = new World();
    const client = world.connect();
    client.version('{"capabilities":{"max_data_xfer_size":64}}');
    expect(client.read(0, 0, 64).errno).toBe(0);
    expect(client.read(0, 0, 65).errno).toBe(EINVAL);
  });

  it("that the function refuses are EINVAL, and one that it fails at is EIO (U91, U137)", () => {
    const client = open();
    world.function.read = () => false;
    expect(client.read(0, 0, 4).errno).toBe(EINVAL);
    world.function.read = () => {
      throw new Error("out of order");
    };
    expect(client.read(0, 0, 4).errno).toBe(5);
    expect(world.server.failures).toBe(1);
    expect(world.log[0]).toContain("fake0: the device failed at command 9: out of order");
  });

  const entry = (region: number, offset: number, bytes: readonly number[], count = bytes.length) =>
    join(
      pack([8, offset], [4, region], [4, count]),
      Uint8Array.from([...bytes, ...new Array(8 - bytes.length).fill(0)]),
    );
  it("come many in one message (U30, U92)", () => {
    const client = open();
    const payload = join(pack([8, 2]), entry(0, 0, [1, 2]), entry(7, 4, [6]));
    const { view } = client.ask(15, payload);
    expect(view.getBigUint64(0, true)).toBe(2n);
    expect(world.function.log).toEqual(["0 0 1,2", "7 4 6"]);
    client.send(15, payload, { flags: 0x10 });
    expect(client.next()).toBe(null);
    expect(world.function.log.length).toBe(4);
    expect(client.ask(15, pack([8, 0])).errno).toBe(0);
  });

  it("come many in one message up to one that is wrong (U92)", () => {
    const client = open();
    const good = entry(0, 0, [1]);
    for (const bad of [
      entry(0, 0, [], 0),
      entry(0, 0, [1], 9),
      entry(9, 0, [1]),
      entry(0, 0x4000, [1]),
    ]) {
      world.function.log.length = 0;
      expect(client.errno(15, join(pack([8, 3]), good, bad, good))).toBe(EINVAL);
      expect(world.function.log).toEqual(["0 0 1"]);
    }
    world.function.log.length = 0;
    for (const count of [0n, 2n, 2n ** 63n, 2n ** 53n + 1n]) {
      expect(client.errno(15, join(pack([8, count]), good))).toBe(EINVAL);
    }
    expect(client.errno(15, join(pack([8, 1]), good.subarray(1)))).toBe(EINVAL);
    const many = Array.from({ length: 201 }, () => good);
    expect(client.errno(15, join(pack([8, 201]), ...many))).toBe(EINVAL);
    expect(world.function.log).toEqual([]);
  });
});

describe("a device", () => {
  it("works after its messages were answered, not before (U97, U103)", () => {
    const client = open();
    let answered = -1;
    world.function.onWork = () => {
      answered = world.server.connection?.writer.isWaiting === true ? 1 : 0;
      return false;
    };
    client.write(0, 0, pack([4, 1]));
    expect(answered).toBe(0);
  });

  it("is called again while it has more to do", () => {
    const client = open();
    let left = 5;
    world.function.onWork = () => {
      left -= 1;
      return left > 0;
    };
    client.settleFor(1);
    expect(left).toBeLessThanOrEqual(0);
  });

  it("that fails at work rests until it is reset, and its registers still answer (U137)", () => {
    const client = open();
    world.function.onWork = () => {
      throw new Error("out of order");
    };
    expect(client.read(7, 0, 4).errno).toBe(0);
    const { works } = world.function;
    expect(client.read(7, 0, 4).errno).toBe(0);
    expect(world.function.works).toBe(works);
    world.function.onWork = () => false;
    client.reset();
    expect(world.function.works).toBeGreaterThan(works);
    expect(world.log.length).toBe(1);
  });

  it("is reset by DEVICE_RESET, and keeps memory and interrupts (U107, U81)", () => {
    const client = open();
    expect(client.map(0, 0x1000, { fd: world.memoryFile(0x1000) })).toBe(0);
    expect(client.setIrqs(0x24, 2, 0, 1, { fds: [world.event()] })).toBe(0);
    client.write(0, 0, pack([4, 9]));
    expect(client.reset()).toBe(0);
    expect(world.function.resets).toBe(1);
    expect(client.read(0, 0, 4).view.getUint32(16, true)).toBe(0);
    expect([world.server.dma.count, world.interrupts.descriptors]).toEqual([1, 1]);
  });

  it("is reset a thousand times in the middle of everything (U155)", () => {
    const client = open();
    for (let round = 0; round < 1000; round += 1) {
      client.post(0, 0, pack([4, round]));
      world.interrupts.raise(1);
      expect(client.reset()).toBe(0);
    }
    expect(world.function.resets).toBe(1000);
    expect(world.interrupts.signals).toBe(0);
  });

  it("takes a reset with a payload as a reset (U109)", () => {
    expect(open().errno(13, new Uint8Array(5))).toBe(0);
  });

  it("keeps what a client agreed to before the client hears of it, and that it left", () => {
    const kept: (unknown | null)[] = [];
    const journal = { keep: ({ client }: { client: unknown }) => void kept.push(client) };
    world = new World({ server: { journal } });
    const client = world.connect();
    expect(client.version(QEMU_JSON).errno).toBe(0);
    expect(kept.at(-1)).toMatchObject({ transferBytes: 1_048_576 });
    client.close();
    expect(kept.at(-1)).toBe(null);
  });

  it("is offered to the next client as new (U115, U141)", () => {
    const first = open();
    first.map(0, 0x1000, { fd: world.memoryFile(0x1000) });
    first.setIrqs(0x24, 2, 0, 2, { fds: [world.event(), world.event()] });
    first.write(0, 0, pack([4, 9]));
    first.close();
    expect(world.server.connection).toBe(null);
    expect([world.server.dma.count, world.interrupts.descriptors]).toEqual([0, 0]);
    expect(world.memory.regions).toEqual([]);
    const second = world.connect();
    expect(second.read(0, 0, 4).errno).toBe(EINVAL);
    expect(second.version(QEMU_JSON).errno).toBe(0);
    expect(second.read(0, 0, 4).view.getUint32(16, true)).toBe(0);
    expect(second.unmap(0, 0x1000)).toBe(ENOENT);
  });
});
