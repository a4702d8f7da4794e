package bus_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/natstest"
)

// As the consumers' user, whose rights are small.
func TestKeysAndRead(t *testing.T) {
	t.Parallel()
	r := newRig(t, natstest.LazySync)
	kv, err := r.js.KeyValue(t.Context(), "crm")
	if err != nil {
		t.Fatal(err)
	}
	js := r.JetStream("consumers")
	keys := func() (live, gone []string) {
		t.Helper()
		if err := bus.Keys(t.Context(), js, []string{"lead.", "optout."}, func(key string, _ uint64, deleted bool) error {
			if deleted {
				gone = append(gone, key)
			} else {
				live = append(live, key)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return live, gone
	}
	if live, gone := keys(); len(live)+len(gone) != 0 {
		t.Errorf("an empty bucket: %q, %q", live, gone)
	}
	const n = 5203 // more than one page
	for part := range slices.Chunk(slices.Collect(func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}), 500) {
		for _, i := range part {
			if _, err := r.js.PublishAsync(contracts.SubjectOfKey(fmt.Sprintf("lead.%d", i)), fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
			if i%3 == 0 {
				if _, err := r.js.PublishAsync(contracts.SubjectOfKey(fmt.Sprintf("contact.%d", i)), []byte("other")); err != nil {
					t.Fatal(err)
				}
			}
		}
		<-r.js.PublishAsyncComplete()
	}
	if _, err := kv.PutString(t.Context(), "optout.33639980001", "{}"); err != nil {
		t.Fatal(err)
	}
	if err := kv.Delete(t.Context(), "lead.8"); err != nil {
		t.Fatal(err)
	}
	live, gone := keys()
	if len(live) != n || live[0] != "lead.0" || live[n-1] != "optout.33639980001" || len(gone) != 1 || gone[0] != "lead.8" {
		t.Errorf("%d keys, from %s to %s; gone %q", len(live), live[0], live[len(live)-1], gone)
	}
	if slices.ContainsFunc(live, func(k string) bool { return strings.HasPrefix(k, "contact.") }) {
		t.Error("keys of another kind came too")
	}
	msgs, err := bus.Read(t.Context(), js, append([]string{"lead.none", "lead.8"}, live[:1100]...))
	if err != nil || len(msgs) != 1101 {
		t.Fatalf("%d records: %v", len(msgs), err)
	}
	for _, m := range msgs {
		key := contracts.KeyOfSubject(m.Subject)
		if key == "lead.8" {
			if len(m.Data) != 0 || m.Header["KV-Operation"] != "DEL" {
				t.Errorf("a deleted one: %+v", m)
			}
		} else if key != "lead."+string(m.Data) || m.Time.IsZero() || m.Sequence == 0 {
			t.Errorf("%s: %s", key, m.Data)
		}
	}
	if msgs, err := bus.Read(t.Context(), js, []string{"lead.none"}); err != nil || len(msgs) != 0 {
		t.Errorf("none: %v, %v", msgs, err)
	}
}
