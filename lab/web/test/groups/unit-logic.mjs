// Pure logic: the model of a walk, links, questions and scores, sentences, alignment. No browser.
import assert from 'node:assert/strict';
import { load } from '../lib/bundle.mjs';
import { fixture, IDS } from '../lib/server.mjs';

export const needsBrowser = false;
const model = await load('model.ts');
const { readLink, writeLink } = await load('link.ts');
const score = await load('score.ts');
const { align, latest } = await load('align.ts');
const { layers, differences } = await load('headers.ts');
const why = await load('why.ts');
const { TABLES } = await load('i18n.ts');

const rows = (id) => model.sightings(fixture(id).trace);

export default [
  ['every sighting of a trace is one row, in the order of time', () => {
    for (const id of IDS) {
      const { trace } = fixture(id);
      const made = rows(id);
      assert.equal(made.length, trace.walks.reduce((sum, walk) => sum + walk.hops.length, 0) + trace.arp.length, id);
      made.forEach((row, i) => {
        assert.equal(row.index, i);
        if (i > 0) assert.ok(row.time >= made[i - 1].time, `${id} ${i}`);
        // Within a packet time is exact, though a stamp has more digits than a number keeps.
        if (row.before?.hop) assert.equal(row.time - row.before.time, row.hop.after_ns - row.before.hop.after_ns, `${id} ${i}`);
      });
    }
  }],
  ['filters hide what they say, and never everything', () => {
    const made = rows('vxlan-cross-node');
    const all = model.EVERYTHING;
    assert.equal(model.visible(made, all).length, made.length);
    assert.ok(model.visible(made, { ...all, arp: false }).every((row) => row.kind === 'tcp'));
    assert.ok(model.visible(made, { ...all, replies: false }).every((row) => row.way === 'request'));
    assert.ok(model.visible(made, { ...all, overlay: false }).every((row) => !row.overlay));
    const [{ key }] = model.packets(made);
    const one = model.visible(made, { ...all, only: key });
    assert.equal(one.length, fixture('vxlan-cross-node').trace.walks[0].hops.length);
    assert.ok(one.every((row) => row.key === key));
    const nothing = { ...all, arp: false, tcp: false };
    assert.ok(model.visible(made, nothing).length > 0);
    assert.ok(model.visible(made, { ...all, only: 'ffff-9' }).length > 0);
  }],
  ['a lost packet ends at the place that the trace names, and nowhere else', () => {
    const lost = rows('firewall-drop').filter((row) => row.lost);
    assert.equal(lost.length, 1);
    assert.equal(`${lost[0].at} ${lost[0].direction}`, fixture('firewall-drop').trace.lost.at);
    assert.ok(rows('routed-cross-node').every((row) => !row.lost));
  }],
  ['packets with one id have keys of their own', () => {
    const { trace } = structuredClone(fixture('routed-cross-node'));
    for (const walk of trace.walks) for (const hop of walk.hops) hop.id = 7;
    const keys = model.packets(model.sightings(trace)).map(({ key }) => key);
    assert.equal(new Set(keys).size, trace.walks.length);
  }],
  ['addresses of both families are split from their ports', () => {
    assert.deepEqual(model.split('10.244.1.2:8080'), { address: '10.244.1.2', port: '8080' });
    assert.deepEqual(model.split('[fd00::1]:80'), { address: 'fd00::1', port: '80' });
  }],
  ['links are read as they are written; what is no name or step is left out', () => {
    const place = { lesson: '7', walk: 'routed-cross-node', with: 'vxlan-cross-node', step: 3, pkt: '7f3a' };
    assert.deepEqual(readLink(writeLink(place)), place);
    assert.equal(writeLink({ ...place, with: '', pkt: '' }), '#lesson=7&walk=routed-cross-node&step=3');
    assert.deepEqual(readLink('#walk=<img>&step=-4&pkt=a b&lesson='), { lesson: '', walk: '', with: '', step: 1, pkt: '' });
    assert.equal(readLink('#step=1e99').step, 1e99);
    assert.equal(model.clampStep(readLink('#step=1e99').step, 40), 40);
    assert.equal(model.clampStep(Number.NaN, 40), 1);
  }],
  ['questions hold the right answer once, among several, and scores add up', () => {
    const shown = model.visible(rows('masquerade-cross-node'), model.USUAL);
    let asked = 0;
    for (let i = 0; i + 1 < shown.length; i++) {
      const made = score.questions(shown, shown[i], shown[i + 1]);
      for (const { choices, right } of made) {
        assert.equal(choices.filter((choice) => choice === right).length, 1);
        assert.ok(choices.length > 1 && choices.length <= 4);
      }
      asked += made.length;
      if (shown[i].key !== shown[i + 1].key) assert.deepEqual(made, []);
    }
    assert.ok(asked > shown.length);
    const rewritten = shown.findIndex((row) => row.changed.some(({ field }) => field === 'SRC'));
    const [, source, ttl] = score.questions(shown, shown[rewritten - 1], shown[rewritten]);
    assert.equal(source.right, '192.0.2.11');
    assert.ok(source.choices.includes('10.244.1.2'));
    assert.equal(ttl.right, '63');
    assert.deepEqual(score.marked({ right: 1, asked: 2 }, [source, ttl], { source: '192.0.2.11', ttl: '64' }), { right: 2, asked: 4 });
    assert.deepEqual(score.marked({ right: 0, asked: 0 }, [ttl], {}), { right: 0, asked: 1 });
  }],
  ['two walks stand side by side: every row once, in order, a tunnel only where it is', () => {
    const [a, b] = ['routed-cross-node', 'vxlan-cross-node'].map((id) => model.visible(rows(id), model.USUAL));
    const pairs = align(a, b);
    assert.deepEqual(pairs.map((pair) => pair.a).filter(Boolean), a);
    assert.deepEqual(pairs.map((pair) => pair.b).filter(Boolean), b);
    const alone = pairs.filter((pair) => !pair.a || !pair.b);
    assert.ok(alone.length > 0 && alone.every((pair) => !pair.a && /flannel/.test(pair.b.at)), JSON.stringify(alone.map((p) => [p.a?.at, p.b?.at])));
    assert.equal(latest(pairs, pairs.length, 'a'), a.at(-1));
    assert.ok(pairs.some((pair) => pair.a && pair.b && differences(pair.a, pair.b).join() === 'OUTER'));
    const masked = align(a, model.visible(rows('masquerade-cross-node'), model.USUAL));
    assert.ok(masked.some((pair) => pair.a && pair.b && differences(pair.a, pair.b).includes('SRC')));
  }],
  ['fields that the trace says are changed are the ones that headers show as changed', () => {
    for (const id of IDS) {
      for (const row of rows(id).filter((one) => one.before?.hop)) {
        const changed = layers(row, row.before).flatMap((layer) => layer.fields.filter((field) => field.changed).map((field) => field.id));
        const told = new Set(row.changed.map(({ field }) => field));
        assert.equal(changed.includes('ip.ttl'), told.has('TTL'), `${id} ${row.at}`);
        assert.equal(changed.includes('ip.src'), told.has('SRC'), `${id} ${row.at}`);
        assert.equal(changed.includes('ip.dst'), told.has('DST'), `${id} ${row.at}`);
        assert.equal(changed.some((field) => field.startsWith('eth.')), told.has('MAC'), `${id} ${row.at}`);
      }
    }
  }],
  ['every reason of the recorded walks has a sentence in both languages', () => {
    for (const id of IDS) {
      for (const row of rows(id)) {
        if (row.hop) assert.ok(why.isKnown(row.hop.why), `${id}: ${row.hop.why}`);
        const [en, ko] = ['en', 'ko'].map((lang) => why.sentence(lang, row));
        assert.notEqual(en, ko);
        assert.ok(/[가-힣]/.test(ko), ko);
        assert.ok(!/[가-힣]/.test(en), en);
        assert.ok(!/undefined|\{|\}/.test(en + ko), en + ko);
      }
    }
    assert.equal(why.isKnown('something new'), false);
    assert.equal(why.reason('ko', 'something new'), 'something new');
  }],
  ['the sentence of the flagship hop tells route, TTL and MAC addresses', () => {
    const hop = rows('routed-cross-node').find((row) => row.at === 'node1/eth0' && row.hop);
    assert.equal(why.sentence('en', hop), 'node1 looked up 10.244.2.2: route 10.244.2.0/24 via 192.0.2.12; TTL 64→63; new MAC addresses.');
  }],
  ['both languages have every string, with the same holes', () => {
    const holes = (text) => [...text.matchAll(/\{(\w+)\}/g)].map(([, name]) => name).sort().join();
    assert.deepEqual(Object.keys(TABLES.en).sort(), Object.keys(TABLES.ko).sort());
    for (const key of Object.keys(TABLES.en)) {
      assert.ok(TABLES.en[key].trim() && TABLES.ko[key].trim(), key);
      assert.equal(holes(TABLES.en[key]), holes(TABLES.ko[key]), key);
    }
  }],
];
