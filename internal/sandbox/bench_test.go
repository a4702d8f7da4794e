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

// BenchmarkTenThousandLeads is the whole way of 10,000 leads that arrive at once, in
// bodies of 100: through the edge, Meta's Graph API, the bucket and Twilio into the
// spreadsheet, under Google's real quota.
func BenchmarkTenThousandLeads(b *testing.B) {
	const leads, body = 10_000, 100
	for range b.N {
		s, err := sandbox.Start(b.Context(), sandbox.Options{Dir: b.TempDir(), NATSConf: natstest.Root(b, "nats.conf"), NATSPort: -1,
			EdgeAddr: "127.0.0.1:0", Latency: 100 * time.Millisecond, Log: slog.New(slog.NewJSONHandler(io.Discard, nil))})
		if err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		for i := 0; i < leads; i += body {
			if status, err := s.SendLeads(b.Context(), i, body); err != nil || status != 200 {
				b.Fatalf("%d, %v", status, err)
			}
		}
		stored := time.Since(start)
		var rows, texts time.Duration
		for rows == 0 || texts == 0 {
			if rows == 0 && len(s.Google.Rows("Leads")) == 1+leads {
				rows = time.Since(start)
			}
			if texts == 0 && len(s.Twilio.Messages()) == leads {
				texts = time.Since(start)
			}
			if time.Since(start) > 20*time.Minute {
				b.Fatalf("%d rows, %d texts after 20 minutes", len(s.Google.Rows("Leads"))-1, len(s.Twilio.Messages()))
			}
			time.Sleep(200 * time.Millisecond)
		}
		b.ReportMetric(stored.Seconds(), "stored_s")
		b.ReportMetric(rows.Seconds(), "in_the_sheet_s")
		b.ReportMetric(texts.Seconds(), "texted_s")
		b.ReportMetric(leads/rows.Minutes(), "rows/min")
		b.ReportMetric(float64(s.Google.Stats().QuotaViolations), "quota_violations")
		b.ReportMetric(0, "ns/op")
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	}
}
