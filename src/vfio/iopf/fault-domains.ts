/**
 * The domains of a container whose pages come and go by faults: each page is in all of them or in
 * none, and can be taken out alone.
 *
 * The IOMMU API cannot split a large leaf, so a page that must go alone needs a leaf of its own:
 * pages are mapped one by one, also those of a contiguous run (the proposal of 2021 mapped runs,
 * which review found incompatible with page-granular invalidation). Blocks of 2 MiB may be mapped
 * as one leaf if the caller knows to take them out as one. Source: RFC v3 of 2021, patches 2 to 4;
 * drivers/vfio/vfio_iommu_type1.c:vfio_iommu_map.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import type { IommuDomain } from "../../iommu/domain.ts";
import { IotlbGather } from "../../iommu/gather.ts";
import { Prot } from "../../iommu/prot.ts";

/** Pages of a block that may be one leaf. */
export const BLOCK_PAGES = 512;

const BLOCK_SHIFT = 21;

interface Member {
  readonly domain: IommuDomain;
  /** Collects what a notifier unmaps, until one sync at its end. */
  readonly gather: IotlbGather;
}

/** The domains. */
export class FaultDomains {
  readonly #members: Member[] = [];

  get count(): number {
    return this.#members.length;
  }

  /** The first one, as the record of what is mapped; null without domains. */
  get first(): IommuDomain | null {
    return this.#members[0]?.domain ?? null;
  }

  has(domain: IommuDomain): boolean {
    return this.#members.some((member) => member.domain === domain);
  }

  /** Adds a domain that holds what the others hold. */
  add(domain: IommuDomain): void {
    this.#members.push({ domain, gather: new IotlbGather() });
  }

  /** Takes a domain out, with all that it has mapped; whoever frees it frees that too. */
  remove(domain: IommuDomain): void {
    const index = this.#members.findIndex((member) => member.domain === domain);
    assert(index >= 0, "a domain taken out is there");
    this.#members.splice(index, 1);
  }

  /** Whether every domain can map a block as one leaf. */
  get canMapBlocks(): boolean {
    return this.#members.every(({ domain }) => domain.driver!.pageShifts.includes(BLOCK_SHIFT));
  }

  /** Maps pages side by side, each by a leaf of its own, into every domain or into none. */
  mapPages(iovaPfn: number, pfn: number, pages: number, prot: number): number {
    const members = this.#members;
    for (let index = 0; index < members.length; index += 1) {
      const errno = mapPagesInto(members[index]!.domain, iovaPfn, pfn, pages, prot);
      if (errno === Errno.OK) continue;
      this.#takeBack(index, iovaPfn, pages);
      return errno;
    }
    return Errno.OK;
  }

  /** Maps a block as one leaf, into every domain or into none. */
  mapBlock(iovaPfn: number, pfn: number, prot: number): number {
    const members = this.#members;
    for (let index = 0; index < members.length; index += 1) {
      const errno = members[index]!.domain.map(iovaPfn, pfn, BLOCK_PAGES, prot | Prot.CACHE);
      if (errno === Errno.OK) continue;
      this.#takeBack(index, iovaPfn, BLOCK_PAGES);
      return errno;
    }
    return Errno.OK;
  }

  /** Unmaps pages, all of which are mapped, and leaves the invalidation to {@link sync}. */
  unmap(iovaPfn: number, pages: number): void {
    for (const { domain, gather } of this.#members) {
      const unmapped = domain.unmapFast(iovaPfn, pages, gather);
      assert(unmapped === pages, "what the bitmap holds is what is mapped");
    }
  }

  /** Completes what was unmapped, once for each domain. */
  sync(): void {
    for (const { domain, gather } of this.#members) domain.iotlbSync(gather);
  }

  #takeBack(count: number, iovaPfn: number, pages: number): void {
    for (let index = 0; index < count; index += 1) {
      this.#members[index]!.domain.unmap(iovaPfn, pages);
    }
  }
}

/** Maps pages by leaves of their own. A failure leaves nothing mapped. */
export function mapPagesInto(
  domain: IommuDomain,
  iovaPfn: number,
  pfn: number,
  pages: number,
  prot: number,
): number {
  for (let done = 0; done < pages; done += 1) {
    const errno = domain.mapNoSync(iovaPfn + done, pfn + done, 1, prot | Prot.CACHE);
    if (errno === Errno.OK) continue;
    if (done > 0) domain.unmap(iovaPfn, done);
    return errno;
  }
  const errno = domain.syncMap(iovaPfn, pages);
  if (errno !== Errno.OK) domain.unmap(iovaPfn, pages);
  return errno;
}
