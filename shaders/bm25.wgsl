// BM25 in integers (src/ops/bm25). Bytes moved by the scores: postings and columns of the queries' terms in, scores out; by the
// selection: the scores, once for each byte of the k-th and once to take what passes.

struct Constants {
    rows: u32,
    documents: u32,
    width: u32,
}

@group(0) @binding(1) var<uniform> constants: Constants;

@group(0) @binding(2) var<storage, read_write> postings: array<u32>; // [postings, 1]
@group(0) @binding(3) var<storage, read_write> columns: array<u32>;  // [column_rows, 1]
@group(0) @binding(4) var<storage, read_write> spans: array<u32>;    // [spans, 2]
@group(0) @binding(5) var<storage, read_write> weights: array<u32>;  // [terms, 1]
@group(0) @binding(6) var<storage, read_write> queries: array<u32>;  // [rows, 4]
@group(0) @binding(7) var<storage, read_write> scores: array<u32>;   // [rows, documents]
@group(0) @binding(8) var<storage, read_write> found: array<u32>;    // [rows, width]

const SUB_TILE = 4096u;
const COLUMN = 0xffffffffu;
const NONE = 0xffffffffu;
const LANES = 32u; // threads that have a list together
const PAIRS = SUB_TILE / 2u / 256u; // pairs of documents of a thread in a column

var<workgroup> sums: array<atomic<u32>, SUB_TILE>;

@compute @workgroup_size(256)
fn bm25_score(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let number = workgroup_number(group, groups);
    let sub_tiles = constants.documents / SUB_TILE;
    if number >= constants.rows * sub_tiles {
        return;
    }
    let query = number % constants.rows;
    let sub_tile = number / constants.rows;
    let first = queries[4u * query];
    let end = first + queries[4u * query + 1u];
    let shift = queries[4u * query + 2u];
    let half = (1u << shift) >> 1u;

    var low: array<u32, PAIRS>;
    var high: array<u32, PAIRS>;
    for (var term = first; term < end; term += 1u) {
        let span = 2u * (term * sub_tiles + sub_tile);
        if spans[span + 1u] == COLUMN {
            let start = spans[span] + thread;
            let weight = weights[term];
            for (var i = 0u; i < PAIRS; i += 1u) {
                let codes = columns[start + 256u * i];
                low[i] += (weight * (codes & 0xffffu) + half) >> shift;
                high[i] += (weight * (codes >> 16u) + half) >> shift;
            }
        }
    }
    for (var i = 0u; i < PAIRS; i += 1u) {
        let document = 2u * (thread + 256u * i);
        atomicStore(&sums[document], low[i]);
        atomicStore(&sums[document + 1u], high[i]);
    }
    workgroupBarrier();

    for (var term = first + thread / LANES; term < end; term += 256u / LANES) {
        let span = 2u * (term * sub_tiles + sub_tile);
        let count = spans[span + 1u];
        if count != COLUMN {
            let start = spans[span];
            let weight = weights[term];
            for (var i = thread % LANES; i < count; i += LANES) {
                let posting = postings[start + i];
                atomicAdd(&sums[posting % SUB_TILE], (weight * (posting >> 16u) + half) >> shift);
            }
        }
    }
    workgroupBarrier();

    let base = query * constants.documents + sub_tile * SUB_TILE;
    for (var document = thread; document < SUB_TILE; document += 256u) {
        scores[base + document] = atomicLoad(&sums[document]);
    }
}

const RUN = 8u; // documents of a thread in a round of the selection
const ROUND = RUN * 256u;

var<workgroup> histogram: array<atomic<u32>, 256>;
var<workgroup> limit: u32; // the k-th score so far, and in the end
var<workgroup> remaining: u32; // how many documents of that score come in
var<workgroup> counts: array<u32, 256>;

// Finds the lowest score that comes in, and how many documents have it and come in: the rest of k.
fn find_limit(query: u32, k: u32, thread: u32) {
    let threshold = queries[4u * query + 3u];
    let base = query * constants.documents;
    if thread == 0u {
        limit = 0u;
        remaining = k;
    }
    for (var shift = 24i; shift >= 0i; shift -= 8i) {
        let place = u32(shift);
        atomicStore(&histogram[thread], 0u);
        workgroupBarrier();
        let above = select(limit >> (place + 8u), 0u, place == 24u);
        for (var document = thread; document < constants.documents; document += 256u) {
            let score = scores[base + document];
            let prefix = select(score >> (place + 8u), 0u, place == 24u);
            if score > threshold && prefix == above {
                atomicAdd(&histogram[(score >> place) & 0xffu], 1u);
            }
        }
        workgroupBarrier();
        if thread == 0u {
            var left = remaining;
            var bin = 255u;
            while bin > 0u && atomicLoad(&histogram[bin]) < left {
                left -= atomicLoad(&histogram[bin]);
                bin -= 1u;
            }
            limit |= bin << place;
            remaining = left;
        }
        workgroupBarrier();
    }
}

// The sum of the terms of the threads before this one, in the upper and the lower half of a word apart; the sum of all
// is counts[255] until the next call.
fn sum_before(thread: u32, term: u32) -> u32 {
    workgroupBarrier(); // the sums of the last call have been read
    counts[thread] = term;
    for (var distance = 1u; distance < 256u; distance *= 2u) {
        workgroupBarrier();
        var other = 0u;
        if thread >= distance {
            other = counts[thread - distance];
        }
        workgroupBarrier();
        counts[thread] += other;
    }
    workgroupBarrier();
    return counts[thread] - term;
}

@compute @workgroup_size(256)
fn bm25_select(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let query = workgroup_number(group, groups);
    if query >= constants.rows {
        return;
    }
    let k = constants.width / 2u;
    find_limit(query, k, thread);
    let threshold = queries[4u * query + 3u];
    let base = query * constants.documents;
    let to = query * constants.width;
    var above = 0u; // documents of the rounds before with a score above the limit
    var equal = 0u; // and those with the limit itself
    for (var round = 0u; round < constants.documents; round += ROUND) {
        let first = round + RUN * thread;
        var own = 0u;
        for (var i = 0u; i < RUN; i += 1u) {
            let score = scores[base + first + i];
            if score > threshold {
                own += select(0u, 0x10000u, score > limit) + select(0u, 1u, score == limit);
            }
        }
        let before = sum_before(thread, own);
        var mine_above = above + (before >> 16u);
        var mine_equal = equal + (before & 0xffffu);
        for (var i = 0u; i < RUN; i += 1u) {
            let score = scores[base + first + i];
            if score > threshold && score >= limit {
                if score > limit || mine_equal < remaining {
                    let place = to + 2u * (mine_above + min(mine_equal, remaining));
                    found[place] = first + i;
                    found[place + 1u] = score;
                }
                mine_above += select(0u, 1u, score > limit);
                mine_equal += select(0u, 1u, score == limit);
            }
        }
        let all = counts[255];
        above += all >> 16u;
        equal += all & 0xffffu;
    }
    for (var place = above + min(equal, remaining) + thread; place < k; place += 256u) {
        found[to + 2u * place] = NONE;
        found[to + 2u * place + 1u] = 0u;
    }
}
