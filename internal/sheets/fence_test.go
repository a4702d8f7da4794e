package sheets

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	api "google.golang.org/api/sheets/v4"

	"leadpipe/contracts"
)

// changed is a lead with another status than at first.
func changed(n int) map[string]any {
	l := lead(n)
	l.Status = contracts.LeadClient
	return map[string]any{contracts.KeyLead(l.ID): l}
}

// A write that another writer has overtaken does nothing, whenever it arrives.
func TestOvertakenWriteIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	frozen, next := r.writer(t), r.writer(t)
	r.put(t, leads(0, 5))
	r.handle(t, frozen)
	r.put(t, changed(2))
	msgs := r.changes(t)
	arrived := false
	r.paper.before = func(method string) *mishap {
		if method != "POST values:batchUpdate" {
			return nil
		}
		r.paper.before = nil
		r.put(t, leads(5, 9))
		r.handle(t, next)
		r.paper.page(t, "Leads").shuffle(3) // now it would land in other rows
		before := r.paper.Rows("Leads")
		r.paper.after = func(string) *mishap {
			r.paper.after, arrived = nil, true
			if d := cmp.Diff(before, r.paper.Rows("Leads")); d != "" {
				t.Errorf("the overtaken write did something:\n%s", d)
			}
			return nil
		}
		return nil
	}
	for _, err := range frozen.Handle(t.Context(), msgs) {
		if err != nil {
			t.Error(err) // it takes over again and finishes
		}
	}
	r.mustMatch(t)
	if !arrived {
		t.Error("no write arrived late")
	}
}

// One that only audits takes nothing from the writer as long as all is right.
func TestIdleAuditLeavesTheFence(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	active, former := r.writer(t), r.writer(t)
	r.put(t, leads(0, 5))
	r.handle(t, former)
	r.put(t, changed(2))
	r.handle(t, active)
	held := active.client.fence
	r.audit(t, former)
	calls := 0
	r.paper.before = func(string) *mishap { calls++; return nil }
	r.put(t, changed(3))
	r.handle(t, active)
	r.mustMatch(t)
	if active.client.fence != held || calls > 3 {
		t.Errorf("the writer had to take over again, with %d calls", calls)
	}
	r.paper.page(t, "Leads").deleteRow(2)
	if r.audit(t, former) == 0 || former.client.fence == "" {
		t.Error("nothing was repaired")
	}
	r.mustMatch(t)
}

// A write that its writer has given up can't come late.
func TestLateWriteIsRefused(t *testing.T) {
	t.Parallel()
	for _, at := range []int{1, 2} { // the first and the second write of few changes
		r := newRig(t)
		w := r.writer(t)
		r.put(t, leads(0, 5))
		r.handle(t, w)
		writes := 0
		r.paper.before = func(method string) *mishap {
			if method == "POST values:batchUpdate" {
				if writes++; writes == at {
					return &mishap{late: true}
				}
			}
			return nil
		}
		r.put(t, leads(5, 7))
		r.handle(t, w)
		r.paper.page(t, "Leads").shuffle(uint64(at))
		if len(r.paper.late) != 1 {
			t.Fatalf("%d late calls", len(r.paper.late))
		}
		r.paper.land()
		r.mustMatch(t)
	}
}

// People see the fence, and may delete it, or the tab that it is on.
func TestDeletedFenceIsPutAgain(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]func(t *testing.T, r *rig, w *Writer){
		"the name": func(t *testing.T, r *rig, w *Writer) {
			if err := w.client.update(t.Context(), []*api.Request{{DeleteNamedRange: &api.DeleteNamedRangeRequest{NamedRangeId: w.client.fence}}}); err != nil {
				t.Fatal(err)
			}
		},
		"its tab": func(t *testing.T, r *rig, _ *Writer) {
			if err := r.paper.DeleteTab(r.paper.Tabs()[0]); err != nil {
				t.Fatal(err)
			}
		},
		"its row": func(t *testing.T, r *rig, _ *Writer) { r.paper.page(t, r.paper.Tabs()[0]).deleteRow(0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			w := r.writer(t)
			r.put(t, leads(0, 5))
			r.handle(t, w)
			remove(t, r, w)
			r.put(t, changed(2))
			r.handle(t, w)
			r.mustMatch(t)
			if w.client.fence == "" {
				t.Error("the writer goes on without a fence")
			}
		})
	}
}

// Where named ranges can't be had the sheet is still written.
func TestWithoutNamedRanges(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]*mishap{"refused": {status: 400}, "ignored": {status: 200}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.paper.withoutNames = answer
			w := r.writer(t)
			r.put(t, leads(0, 5))
			r.handle(t, w)
			r.put(t, changed(2))
			r.handle(t, w)
			r.put(t, leads(5, 2000)) // more rows than the tab has
			r.handle(t, w)
			r.mustMatch(t)
			if w.client.fence != "" {
				t.Error("the writer believes in a fence")
			}
		})
	}
}
