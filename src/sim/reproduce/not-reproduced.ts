/** Published figures of the same subject that no run here gives, and why. */

/** What is left out. */
export interface NotReproduced {
  readonly name: string;
  readonly reason: string;
}

/** The list. */
export const notReproduced: readonly NotReproduced[] = [
  {
    name: "CMD_SYNC on an empty queue, near and far, by interrupt and by polling (B. Song, 2020)",
    reason: "these are prices of ours (300 and 800 ns), and so no predictions",
  },
  {
    name: "the wait for CMD_SYNC within an unmap (B. Song, 25 May 2020)",
    reason:
      "the queue is one resource here: waiting to put a command in and waiting for it to be done are not told apart",
  },
  {
    name: "flushes of 250 entries or 10 ms regain 15 to 20 % of small UDP packets (M. Gross, 2008)",
    reason: "a statement about a network of 2008 whose other costs were not published",
  },
  {
    name: "NVMe on D05 and D06: 750, 456 and 540 or 740 K requests a second (J. Garry, 2019)",
    reason:
      "two servers that are equal without an SMMU and in strict mode and differ in lazy mode; nothing published tells them apart",
  },
  {
    name: "statements on 10 to 200 Gb/s networks (vIOMMU 2011, ELI 2012, IOTLB wall 2023)",
    reason: "no network stack is modelled, and no table was given",
  },
  {
    name: "exits of virtual machines, IPIs, caches of Arm's MMUs, PCI enumeration",
    reason: "constants; those that something here costs are prices with their source",
  },
  {
    name: "polled NVMe reads on an Arm server: 327 K on the disk's socket, 34.9 K on the other (M. Lei, 2021)",
    reason:
      "unmapping takes 25 us of 29 there; with the published distances of a Kunpeng 920 it takes 1.6, so that machine's link between sockets is slow by itself (memcpy 3.1 against 11.5 GB/s); docs/reproduce.md, Diagnosis",
  },
];
