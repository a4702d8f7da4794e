package bus_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/natstest"
)

func TestScanSeesEveryKeyOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, natstest.LazySync)
	kv, err := r.js.KeyValue(t.Context(), "crm")
	if err != nil {
		t.Fatal(err)
	}
	leads := func(k string) bool { return strings.HasPrefix(k, "lead.") }
	scan := func() map[string]string {
		got := map[string]string{}
		if err := bus.Scan(context.Background(), r.JetStream("consumers"), leads, func(m contracts.Message) error {
			key := contracts.KeyOfSubject(m.Subject)
			if _, twice := got[key]; twice {
				t.Errorf("%s came twice", key)
			}
			got[key] = string(m.Data)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := scan(); len(got) != 0 {
		t.Errorf("an empty bucket: %v", got)
	}
	const n = 1203 // more than two pages
	for i := range n {
		if _, err := kv.PutString(t.Context(), fmt.Sprintf("lead.%d", i), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			if _, err := kv.PutString(t.Context(), fmt.Sprintf("contact.%d", i), "other"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := kv.PutString(t.Context(), "lead.7", "seven"); err != nil {
		t.Fatal(err)
	}
	if err := kv.Delete(t.Context(), "lead.8"); err != nil {
		t.Fatal(err)
	}
	got := scan()
	if len(got) != n || got["lead.7"] != "seven" || got["lead.8"] != "" || got["lead.1202"] != "1202" {
		t.Errorf("%d keys; 7: %q, 8: %q, 1202: %q", len(got), got["lead.7"], got["lead.8"], got["lead.1202"])
	}
}
