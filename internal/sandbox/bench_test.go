package sandbox_test

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"leadpipe/internal/natstest"
	"leadpipe/internal/sandbox"
)

// BenchmarkWebhookToRow is how long a lead takes from Meta's webhook to its row, at
// eight leads a minute, with stand-ins that take 200 ms a call. A lead alone costs three
// reads and three writes of the 60 that Google allows a minute (the key, the cells, and
// "contacted" a moment later), so from about 15 a minute on leads wait for each other
// and share calls.
func BenchmarkWebhookToRow(b *testing.B) {
	s, err := sandbox.Start(b.Context(), sandbox.Options{Dir: b.TempDir(), NATSConf: natstest.Root(b, "nats.conf"), NATSPort: -1,
		EdgeAddr: "127.0.0.1:0", Latency: 200 * time.Millisecond, Log: slog.New(slog.NewJSONHandler(io.Discard, nil))})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	}()
	rowOf := func(phone string) bool {
		for _, r := range s.Google.Rows("Leads") {
			if len(r) > 3 && r[3] == phone {
				return true
			}
		}
		return false
	}
	const leads = 30
	for range b.N {
		var took []time.Duration
		for i := range leads {
			phone := fmt.Sprintf("+3363998%04d", i)
			start := time.Now()
			if status, err := s.SendLead(b.Context(), "Zoé Martin", phone, fmt.Sprintf("zoe%d@example.com", i)); err != nil || status != 200 {
				b.Fatalf("%d, %v", status, err)
			}
			for !rowOf(phone) {
				if time.Since(start) > time.Minute {
					b.Fatal("no row after a minute")
				}
				time.Sleep(5 * time.Millisecond)
			}
			took = append(took, time.Since(start))
			time.Sleep(time.Duration(5500+i%7*300) * time.Millisecond)
		}
		slices.Sort(took)
		b.ReportMetric(took[len(took)/2].Seconds(), "p50_s")
		b.ReportMetric(took[len(took)*99/100].Seconds(), "p99_s")
		b.ReportMetric(took[len(took)-1].Seconds(), "max_s")
		b.ReportMetric(0, "ns/op")
	}
}
