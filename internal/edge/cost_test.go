//go:build !race

package edge_test

import (
	"runtime"
	"testing"

	"leadpipe/internal/bus"
	"leadpipe/internal/natstest"
)

// What a webhook costs the edge in memory, from a request that net/http has read to the
// answer: an event of Stripe 40 allocations, and two and a half times its body. (The race
// detector has pools forget things, and without inlining, as the Makefile's tests are
// compiled, some five more are made than in what is deployed.)
func TestMemoryOfAWebhook(t *testing.T) {
	const requests, callers = 300, 16
	// Facebook's has five leads, each a message: 78 where they are stored in groups, and 109
	// where the disk is so fast that one by one is faster.
	most := map[string]float64{"stripe": 40, "twilio": 45, "facebook": 5 * 24}
	r := start(t, bus.NewPublisher(natstest.Apart(t).JetStream()))
	for _, k := range kinds {
		serve(t, r, k.prepared(r, 4*callers), callers) // fills the pools
		reqs := k.prepared(r, requests)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		serve(t, r, reqs, callers)
		runtime.ReadMemStats(&after)
		allocations := float64(after.Mallocs-before.Mallocs) / requests
		bytes := float64(after.TotalAlloc-before.TotalAlloc) / requests
		t.Logf("%s: %.0f allocations, %.0f bytes for %d", k.name, allocations, bytes, reqs[0].ContentLength)
		if allocations > most[k.name] || k.name == "stripe" && bytes > 2.5*float64(reqs[0].ContentLength) {
			t.Errorf("%s: %.0f allocations, %.0f bytes for %d", k.name, allocations, bytes, reqs[0].ContentLength)
		}
	}
}
