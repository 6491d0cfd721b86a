// Self-attention over packed sequences (src/ops/attention): FlashAttention-2 on plain f32 cores.
//
// A workgroup owns ROWS rows of one head of one sequence (queries; keys where dk and dv are made), and the other side
// streams past in blocks of BLOCK rows. TEAM threads share four rows: each holds the same COLUMNS columns of all four
// in registers, operands and sums, so that a quad read from workgroup memory meets 16 fused multiply-adds.
//   tile [BLOCK][LINE]: the streamed rows of k, v, q or dout in turn.
//   sums [BLOCK][SUMS]: scores (or dP), a quad one query by four keys and so one counter of dropout, in parts: what
//     each thread's columns contribute. One thread of the team adds a quad's parts and leaves its result there.
//
// Forward: 4 d FLOPs a score; q is read once, k and v once a workgroup; out and lse are written once. The softmax is
// online: a new maximum of a row shrinks its sums. Backward: P is made again from lse, dq takes 6 d FLOPs a score, dk
// and dv 8 d; every gradient has one writer. At d = 128: 12.1 KiB of workgroup memory.

struct Constants {
    tokens: u32,
    tokens_count: u32,
    tokens_start: u32,
    h: u32,
    heads: u32,
    max_length: u32,
    threshold: u32,
    keep_scale: f32,
    op: u32,
}

@group(0) @binding(1) var<uniform> constants: Constants;

@group(0) @binding(2) var<storage, read_write> qkv: array<Stored>;     // [tokens, 3 h]
@group(0) @binding(3) var<storage, read_write> cu_seqlens: array<u32>; // [sequences + 1, 1]
@group(0) @binding(4) var<storage, read_write> out: array<Stored>;     // [tokens, h]
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;        // [tokens, heads]
@group(0) @binding(6) var<storage, read_write> dout: array<Stored>;    // [tokens, h]
@group(0) @binding(7) var<storage, read_write> delta: array<f32>;      // [tokens, heads]
@group(0) @binding(8) var<storage, read_write> dqkv: array<Stored>;    // [tokens, 3 h]

const Q = 0u; // parts of a row of qkv
const K = 1u;
const V = 2u;

const QUADS = (HEAD_SIZE + 3u) / 4u;                        // of a head's row; the last is filled up with zeros
const TEAM = max(4u, (HEAD_SIZE + COLUMNS - 1u) / COLUMNS); // threads that share four rows
const OWN = (QUADS + TEAM - 1u) / TEAM;                     // quads of a row a thread owns: member, member + TEAM ...
const ROWS = 4u * (THREADS / TEAM);                         // rows of a workgroup
const LINE = OWN * TEAM;                                    // quads of a line of the tile, zero beyond QUADS
const SUMS = THREADS + 1u;                                  // quads of a line of sums; one more spreads them over banks
const SCORES = (BLOCK + TEAM - 1u) / TEAM;                  // quads of sums that a thread adds up
const SCALE = 1.0 / sqrt(f32(HEAD_SIZE));
const LOWEST = -1e38;                                       // below every score

const_assert TEAM <= THREADS;
const_assert BLOCK % 4u == 0u;

var<workgroup> bounds: vec2<u32>;
var<workgroup> tile: array<vec4<f32>, BLOCK * LINE>;
var<workgroup> sums: array<vec4<f32>, BLOCK * SUMS>;

// A thread's quads of its team's four rows: [own][column], a vector over the rows.
alias Part = array<mat4x4<f32>, OWN>;

// One vector for each quad of scores that a thread adds up.
alias Scores = array<vec4<f32>, SCORES>;

// Where a thread works.
struct Place {
    begin: u32,  // first token of the sequence
    length: u32, // of the sequence
    head: u32,
    row: u32,    // the first of the team's four rows, counted in the sequence
    member: u32, // number in the team
    slot: u32,   // the team's first column of sums
    scores: u32, // quads of sums that the team adds up: none where its rows lie beyond the sequence
}

// First token and length of the workgroup's sequence; no length beyond the live sequences.
fn sequence_bounds(sequence: u32, thread: u32) -> vec2<u32> {
    if thread == 0u {
        bounds = vec2<u32>(0u, 0u);
        if sequence < step_word(SEQUENCES) {
            let begin = cu_seqlens[sequence];
            bounds = vec2<u32>(begin, cu_seqlens[sequence + 1u] - begin);
        }
    }
    return workgroupUniformLoad(&bounds);
}

// Threads that fill no team have rows beyond the sequence.
fn place(sequence: vec2<u32>, group: vec3<u32>, thread: u32) -> Place {
    let team = thread / TEAM;
    let row = select(sequence.y, group.x * ROWS + 4u * team, 4u * team < ROWS);
    let scores = select(0u, BLOCK, row < sequence.y);
    return Place(sequence.x, sequence.y, group.y, row, thread % TEAM, team * TEAM, scores);
}

// The first word of a quad of a head in a tensor of lines of h; seen to be a multiple of 4 where quads are aligned, so
// that four loads can become one.
fn word(line: u32, head: u32, quad: u32) -> u32 {
    if HEAD_SIZE % 4u == 0u {
        return 4u * (line * (constants.h / 4u) + head * QUADS + quad);
    }
    return line * constants.h + head * HEAD_SIZE + 4u * quad;
}

// Four columns of a head's row of qkv, zero outside the sequence and the head.
fn qkv_quad(at: Place, row: u32, part: u32, quad: u32) -> vec4<f32> {
    if row >= at.length || quad >= QUADS {
        return vec4<f32>();
    }
    let i = word((at.begin + row) * 3u + part, at.head, quad);
    if HEAD_SIZE % 4u == 0u || 4u * quad + 3u < HEAD_SIZE {
        return vec4<f32>(vec4<Stored>(qkv[i], qkv[i + 1u], qkv[i + 2u], qkv[i + 3u]));
    }
    var x = vec4<f32>();
    for (var column = 0u; column < HEAD_SIZE % 4u; column += 1u) {
        x[column] = f32(qkv[i + column]);
    }
    return x;
}

// The same of dout.
fn dout_quad(at: Place, row: u32, quad: u32) -> vec4<f32> {
    if row >= at.length || quad >= QUADS {
        return vec4<f32>();
    }
    let i = word(at.begin + row, at.head, quad);
    if HEAD_SIZE % 4u == 0u || 4u * quad + 3u < HEAD_SIZE {
        return vec4<f32>(vec4<Stored>(dout[i], dout[i + 1u], dout[i + 2u], dout[i + 3u]));
    }
    var x = vec4<f32>();
    for (var column = 0u; column < HEAD_SIZE % 4u; column += 1u) {
        x[column] = f32(dout[i + column]);
    }
    return x;
}

fn qkv_rows(at: Place, part: u32) -> Part {
    var rows: Part;
    for (var own = 0u; own < OWN; own += 1u) {
        let quad = own * TEAM + at.member;
        rows[own] = transpose(mat4x4<f32>(
            qkv_quad(at, at.row, part, quad), qkv_quad(at, at.row + 1u, part, quad),
            qkv_quad(at, at.row + 2u, part, quad), qkv_quad(at, at.row + 3u, part, quad),
        ));
    }
    return rows;
}

fn dout_rows(at: Place) -> Part {
    var rows: Part;
    for (var own = 0u; own < OWN; own += 1u) {
        let quad = own * TEAM + at.member;
        rows[own] = transpose(mat4x4<f32>(
            dout_quad(at, at.row, quad), dout_quad(at, at.row + 1u, quad),
            dout_quad(at, at.row + 2u, quad), dout_quad(at, at.row + 3u, quad),
        ));
    }
    return rows;
}

fn qkv_tile(at: Place, block: u32, part: u32, thread: u32) {
    for (var index = thread; index < BLOCK * LINE; index += THREADS) {
        tile[index] = qkv_quad(at, block + index / LINE, part, index % LINE);
    }
}

fn dout_tile(at: Place, block: u32, thread: u32) {
    for (var index = thread; index < BLOCK * LINE; index += THREADS) {
        tile[index] = dout_quad(at, block + index / LINE, index % LINE);
    }
}

// Four rows times a quad of their columns.
fn multiply_quad(rows: mat4x4<f32>, x: vec4<f32>, sum: vec4<f32>) -> vec4<f32> {
    return fma(rows[3], x.wwww, fma(rows[2], x.zzzz, fma(rows[1], x.yyyy, fma(rows[0], x.xxxx, sum))));
}

// A weight for each of four rows times a quad of columns.
fn outer(weights: vec4<f32>, x: vec4<f32>, sum: mat4x4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        fma(weights, x.xxxx, sum[0]),
        fma(weights, x.yyyy, sum[1]),
        fma(weights, x.zzzz, sum[2]),
        fma(weights, x.wwww, sum[3]),
    );
}

// sums = rows tile^T over the thread's columns. A quad is one query by four keys, whichever of the two streams.
fn multiply(rows: ptr<function, Part>, at: Place, thread: u32, queries_stream: bool) {
    for (var first = 0u; first < BLOCK; first += 4u) {
        var s = mat4x4<f32>(); // [streamed row], a vector over the team's rows
        for (var own = 0u; own < OWN; own += 1u) {
            let r = (*rows)[own];
            let quad = first * LINE + own * TEAM + at.member;
            s = mat4x4<f32>(
                multiply_quad(r, tile[quad], s[0]),
                multiply_quad(r, tile[quad + LINE], s[1]),
                multiply_quad(r, tile[quad + 2u * LINE], s[2]),
                multiply_quad(r, tile[quad + 3u * LINE], s[3]),
            );
        }
        if !queries_stream {
            s = transpose(s);
        }
        let slot = first * SUMS + thread;
        sums[slot] = s[0];
        sums[slot + SUMS] = s[1];
        sums[slot + 2u * SUMS] = s[2];
        sums[slot + 3u * SUMS] = s[3];
    }
}

// Four quads of a team's results: [query], a vector over the keys.
fn results(at: Place, first: u32, slot: u32) -> mat4x4<f32> {
    let i = first * SUMS + at.slot + slot;
    return mat4x4<f32>(sums[i], sums[i + SUMS], sums[i + 2u * SUMS], sums[i + 3u * SUMS]);
}

// part += results tile
fn accumulate(part: ptr<function, Part>, at: Place, slot: u32, queries_stream: bool) {
    for (var first = 0u; first < BLOCK; first += 4u) {
        var weights = results(at, first, slot);
        if !queries_stream {
            weights = transpose(weights);
        }
        for (var own = 0u; own < OWN; own += 1u) {
            let quad = first * LINE + own * TEAM + at.member;
            var sum = outer(weights[0], tile[quad], (*part)[own]);
            sum = outer(weights[1], tile[quad + LINE], sum);
            sum = outer(weights[2], tile[quad + 2u * LINE], sum);
            (*part)[own] = outer(weights[3], tile[quad + 3u * LINE], sum);
        }
    }
}

// The quads of sums that the thread adds up: member, member + TEAM ...
fn added(at: Place) -> Scores {
    var scores: Scores;
    for (var own = 0u; own < SCORES; own += 1u) {
        let quad = own * TEAM + at.member;
        if quad < at.scores {
            for (var member = 0u; member < TEAM; member += 1u) {
                scores[own] += sums[quad * SUMS + at.slot + member];
            }
        }
    }
    return scores;
}

// Which of four keys lie in the sequence.
fn exists(at: Place, key: u32) -> vec4<bool> {
    return vec4<u32>(key) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(at.length);
}

// What dropout multiplies four keys of a query with.
fn factors(at: Place, query: u32, key: u32) -> vec4<f32> {
    let stride = (constants.max_length + 3u) / 4u;
    let block = ((at.begin + query) * constants.heads + at.head) * stride + key / 4u;
    return dropout_factors(block, constants.op, constants.threshold, constants.keep_scale);
}

// x[i] without memory: some compilers index a vector there.
fn component(x: vec4<f32>, i: u32) -> f32 {
    let pair = select(x.xy, x.zw, i >= 2u);
    return select(pair.x, pair.y, i % 2u == 1u);
}

fn exp_vec(x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(exp_f32(x.x), exp_f32(x.y), exp_f32(x.z), exp_f32(x.w));
}

// out = dropout(softmax(q k^T / sqrt(d))) v and lse
@compute @workgroup_size(THREADS)
fn attention_forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let sequence = sequence_bounds(group.z, thread);
    if group.x * ROWS >= sequence.y {
        return;
    }
    let at = place(sequence, group, thread);
    var q = qkv_rows(at, Q);
    var o: Part;                        // sum of P v, P relative to most
    var most = vec4<f32>(LOWEST);       // the largest score of each of the team's rows so far
    var totals: Scores;                 // sums of P over what the thread adds up
    for (var block = 0u; block < sequence.y; block += BLOCK) {
        qkv_tile(at, block, K, thread);
        workgroupBarrier();
        multiply(&q, at, thread, false);
        workgroupBarrier();
        var s = added(at);
        for (var own = 0u; own < SCORES; own += 1u) {
            let quad = own * TEAM + at.member;
            if quad < at.scores {
                s[own] = select(vec4<f32>(LOWEST), s[own], exists(at, block + quad / 4u * 4u));
                sums[quad * SUMS + at.slot] = s[own];
            }
        }
        qkv_tile(at, block, V, thread);
        workgroupBarrier();
        var larger = most;
        for (var first = 0u; first < BLOCK; first += 4u) {
            let scores = transpose(results(at, first, 0u));
            larger = max(larger, max(max(scores[0], scores[1]), max(scores[2], scores[3])));
        }
        if any(larger > most) {
            let shrink = exp_vec((most - larger) * SCALE);
            for (var own = 0u; own < OWN; own += 1u) {
                let sum = o[own];
                o[own] = mat4x4<f32>(sum[0] * shrink, sum[1] * shrink, sum[2] * shrink, sum[3] * shrink);
            }
            for (var own = 0u; own < SCORES; own += 1u) {
                totals[own] *= component(shrink, (own * TEAM + at.member) % 4u);
            }
            most = larger;
        }
        for (var own = 0u; own < SCORES; own += 1u) {
            let quad = own * TEAM + at.member;
            if quad < at.scores {
                let p = exp_vec((s[own] - component(most, quad % 4u)) * SCALE);
                totals[own] += p;
                sums[quad * SUMS + at.slot + 1u] = p * factors(at, at.row + quad % 4u, block + quad / 4u * 4u);
            }
        }
        workgroupBarrier();
        accumulate(&o, at, 1u, false);
        workgroupBarrier();
    }
    for (var own = 0u; own < SCORES; own += 1u) {
        let quad = own * TEAM + at.member;
        if quad < at.scores {
            sums[quad * SUMS + at.slot] = totals[own];
        }
    }
    workgroupBarrier();
    var total = vec4<f32>();
    for (var first = 0u; first < BLOCK; first += 4u) {
        let t = transpose(results(at, first, 0u));
        total += (t[0] + t[1]) + (t[2] + t[3]);
    }
    let row = at.row + at.member;
    if at.member < 4u && row < at.length {
        let sum = log_f32(component(total, at.member));
        lse[(at.begin + row) * constants.heads + at.head] = fma(component(most, at.member), SCALE, sum);
    }
    for (var own = 0u; own < OWN; own += 1u) {
        let quad = own * TEAM + at.member;
        let sum = o[own];
        var rows = transpose(mat4x4<f32>(sum[0] / total, sum[1] / total, sum[2] / total, sum[3] / total));
        for (var row = 0u; row < 4u; row += 1u) {
            let i = word(at.begin + at.row + row, at.head, quad);
            for (var column = 0u; column < 4u; column += 1u) {
                if at.row + row < at.length && 4u * quad + column < HEAD_SIZE {
                    out[i + column] = Stored(rows[row][column]);
                }
            }
        }
    }
}

// delta = sum of dout out over a head's row, a thread each
@compute @workgroup_size(THREADS)
fn attention_delta(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let token = group.x * THREADS + thread;
    if token >= live(constants.tokens, constants.tokens_count, constants.tokens_start) {
        return;
    }
    let first = token * constants.h + group.y * HEAD_SIZE;
    var sum = 0.0;
    for (var column = 0u; column < HEAD_SIZE; column += 1u) {
        sum = fma(f32(out[first + column]), f32(dout[first + column]), sum);
    }
    delta[token * constants.heads + group.y] = sum;
}

fn store_dqkv(gradient: ptr<function, Part>, at: Place, part: u32) {
    for (var own = 0u; own < OWN; own += 1u) {
        let quad = own * TEAM + at.member;
        var rows = transpose((*gradient)[own]);
        for (var row = 0u; row < 4u; row += 1u) {
            let i = word((at.begin + at.row + row) * 3u + part, at.head, quad);
            for (var column = 0u; column < 4u; column += 1u) {
                if at.row + row < at.length && 4u * quad + column < HEAD_SIZE {
                    dqkv[i + column] = Stored(rows[row][column]);
                }
            }
        }
    }
}

// What the backward needs of one query and four keys.
struct Gradients {
    p: vec4<f32>,  // dropout(P)
    ds: vec4<f32>, // dS / sqrt(d)
}

// From q k^T and dout v^T.
fn gradients(at: Place, query: u32, key: u32, s: vec4<f32>, dp: vec4<f32>) -> Gradients {
    if query >= at.length {
        return Gradients(vec4<f32>(), vec4<f32>());
    }
    let i = (at.begin + query) * constants.heads + at.head;
    let p = select(vec4<f32>(), exp_vec(fma(s, vec4<f32>(SCALE), vec4<f32>(-lse[i]))), exists(at, key));
    let factor = factors(at, query, key);
    return Gradients(p * factor, p * fma(dp, factor, vec4<f32>(-delta[i])) * SCALE);
}

// dq = dS k
@compute @workgroup_size(THREADS)
fn attention_backward_queries(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let sequence = sequence_bounds(group.z, thread);
    if group.x * ROWS >= sequence.y {
        return;
    }
    let at = place(sequence, group, thread);
    var q = qkv_rows(at, Q);
    var d = dout_rows(at);
    var dq: Part;
    for (var block = 0u; block < sequence.y; block += BLOCK) {
        qkv_tile(at, block, V, thread);
        workgroupBarrier();
        multiply(&d, at, thread, false);
        workgroupBarrier();
        var dp = added(at);
        qkv_tile(at, block, K, thread);
        workgroupBarrier();
        multiply(&q, at, thread, false);
        workgroupBarrier();
        var s = added(at);
        for (var own = 0u; own < SCORES; own += 1u) {
            let quad = own * TEAM + at.member;
            if quad < at.scores {
                let g = gradients(at, at.row + quad % 4u, block + quad / 4u * 4u, s[own], dp[own]);
                sums[quad * SUMS + at.slot] = g.ds;
            }
        }
        workgroupBarrier();
        accumulate(&dq, at, 0u, false);
        workgroupBarrier();
    }
    store_dqkv(&dq, at, Q);
}

// dv = dropout(P)^T dout, dk = dS^T q
@compute @workgroup_size(THREADS)
fn attention_backward_keys(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let sequence = sequence_bounds(group.z, thread);
    if group.x * ROWS >= sequence.y {
        return;
    }
    let at = place(sequence, group, thread);
    var k = qkv_rows(at, K);
    var v = qkv_rows(at, V);
    var dk: Part;
    var dv: Part;
    for (var block = 0u; block < sequence.y; block += BLOCK) {
        qkv_tile(at, block, Q, thread);
        workgroupBarrier();
        multiply(&k, at, thread, true);
        workgroupBarrier();
        var s = added(at);
        dout_tile(at, block, thread);
        workgroupBarrier();
        multiply(&v, at, thread, true);
        workgroupBarrier();
        var dp = added(at);
        for (var own = 0u; own < SCORES; own += 1u) {
            let quad = own * TEAM + at.member;
            if quad < at.scores {
                let g = gradients(at, block + quad, at.row, s[own], dp[own]);
                sums[quad * SUMS + at.slot] = g.p;
                sums[quad * SUMS + at.slot + 1u] = g.ds;
            }
        }
        workgroupBarrier();
        accumulate(&dv, at, 0u, true);
        workgroupBarrier();
        qkv_tile(at, block, Q, thread);
        workgroupBarrier();
        accumulate(&dk, at, 1u, true);
        workgroupBarrier();
    }
    store_dqkv(&dk, at, K);
    store_dqkv(&dv, at, V);
}
