/** Which QEMU will do. */
import { describe, expect, it } from "vitest";
import { findQemu, type Probe } from "./find-qemu.ts";

/** A program that says this of itself. */
function program(version: string, properties: string | null = "  socket=<SocketAddress>"): Probe {
  return (words) =>
    words.includes("--version") ? `QEMU emulator version ${version}\n` : properties;
}

describe("a QEMU", () => {
  it("of 10.1 with vfio-user-pci will do", async () => {
    const found = await findQemu("/opt/qemu", program("10.1.0 (Debian)"));
    expect(found).toEqual({ command: ["/opt/qemu"], version: "10.1.0" });
  });

  it.each([
    [program("10.0.9"), "/opt/qemu is 10.0.9, older than 10.1"],
    [program("7.2.22"), "/opt/qemu is 7.2.22, older than 10.1"],
    [program("11.1.3", null), "/opt/qemu has no vfio-user-pci"],
    [() => "GNU bash, 5.2", "/opt/qemu is no QEMU"],
    [() => null, "/opt/qemu does not run"],
  ] as [Probe, string][])("that is none of ours is refused by name", async (probe, why) => {
    await expect(findQemu("/opt/qemu", probe)).rejects.toThrow(why);
  });
});
