/** The server as a client finds it: one statement of the vfio-user reference (U…) after another. */
import { afterEach, describe, expect, it } from "vitest";
import { hexOf, join, message, pack, text, unhex } from "./client.suite.ts";
import { QEMU_JSON, World } from "./world.suite.ts";

let world = new World();
const open = (options = {}) => {
  world = new World(options);
  return world.negotiate();
};
afterEach(() => world.end());

describe("VERSION", () => {
  const connect = () => {
    world = new World();
    return world.connect();
  };

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
    const { capabilities } = JSON.parse(json.slice(0, -1));
    expect(capabilities).toEqual({
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
});

it("an errno is a reply of 16 bytes with the error flag and the request's id (U7, U8)", () => {
  const client = open();
  client.sendRaw(unhex("0b000e00 10000000 00000000 00000000"));
  const answer = client.next()!;
  expect([answer.id, answer.command, answer.flags, answer.errno]).toEqual([11, 14, 0x21, 22]);
  expect(answer.payload.length).toBe(0);
  expect(hexOf(client.read(7, 0, 4).payload.subarray(16))).toBe("f41a5710");
});
