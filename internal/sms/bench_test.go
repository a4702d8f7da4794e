package sms_test

import (
	"fmt"
	"testing"
	"time"

	"leadpipe/internal/natstest"
	standin "leadpipe/internal/sandbox/twilio"
)

// BenchmarkTexts is how many texts a second go through, from the first call to Twilio
// to the last, with 100 ms a call and every commit on disk.
func BenchmarkTexts(b *testing.B) {
	const texts = 4000
	for _, processes := range []int{1, 3} {
		b.Run(fmt.Sprintf("processes=%d", processes), func(b *testing.B) {
			for b.Loop() {
				r := newRigOn(b, natstest.New(b), func(o *standin.Options) {
					o.MinLatency, o.MaxLatency = 100*time.Millisecond, 100*time.Millisecond
				})
				for first := 0; first < texts; first += 200 {
					r.queue(span(first, first+200)...)
				}
				for range processes {
					r.spawn(envParallel+"=64", envCallTime+"=10s")
				}
				eventually(b, 2*time.Minute, "all texts are sent", func() bool { return len(r.twilio.Calls()) >= texts })
				calls := r.twilio.Calls()
				b.ReportMetric(texts/calls[len(calls)-1].Began.Sub(calls[0].Began).Seconds(), "texts/s")
			}
		})
	}
}
