import { describe, expect, it } from "vitest";
import { viewOf } from "../../wire/layout.ts";
import { chainBytes, decodeChain, encodeChain } from "./capability-chain.ts";

const capability = (id: number, length: number) => ({
  id,
  version: 1,
  bytes: new Uint8Array(length).fill(id, 8),
});

describe("capability chain", () => {
  it("pads each capability to 8 bytes and counts `next` from the structure's start", () => {
    const chain = [capability(2, 32), capability(3, 12), capability(1, 48)];
    expect(chainBytes(chain)).toBe(32 + 16 + 48);
    const bytes = encodeChain(chain, 24);
    const view = viewOf(bytes);
    expect([0, 32, 48].map((at) => view.getUint32(at + 4, true))).toEqual([56, 72, 0]);
    const structure = new Uint8Array(24 + bytes.length);
    structure.set(bytes, 24);
    expect(decodeChain(structure, 24).map((each) => [each.id, each.bytes.length])).toEqual([
      [2, 32],
      [3, 16],
      [1, 48],
    ]);
  });

  it("ends where it leads outside or back", () => {
    const bytes = encodeChain([capability(1, 16), capability(2, 16)], 0);
    const view = viewOf(bytes);
    view.setUint32(20, 1000, true);
    expect(decodeChain(bytes, 16).map((each) => each.id)).toEqual([2]);
    view.setUint32(20, 16, true);
    expect(decodeChain(bytes, 16).map((each) => each.id)).toEqual([2]);
    expect(decodeChain(bytes, 0)).toEqual([]);
    expect(decodeChain(bytes, 28)).toEqual([]);
  });
});
