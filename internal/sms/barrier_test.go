package sms_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"leadpipe/contracts"
	standin "leadpipe/internal/sandbox/twilio"
	"leadpipe/internal/sms"
)

// TestBarrier is the race's two worst moments, made to happen each time: with the whole
// barrier no call begins after the 200 to a STOP, and without the half that is against
// it, one does.
func TestBarrier(t *testing.T) {
	t.Parallel()
	blind := func(context.Context, string) (contracts.Message, bool, error) { return contracts.Message{}, false, nil }
	for _, tt := range []struct {
		name   string
		during bool          // the STOP comes while the sender looks, else before
		hold   time.Duration // of the edge's answer; 0: as it is
		change func(*sms.Options)
		late   bool
	}{
		{"a STOP that nobody has processed", false, 0, func(*sms.Options) {}, false},
		{"a STOP that nobody has processed, without the look", false, 0, func(o *sms.Options) { o.Look = blind }, true},
		{"a STOP between look and call", true, 0, func(*sms.Options) {}, false},
		{"a STOP between look and call, without the waits", true, time.Nanosecond, func(o *sms.Options) { sms.WithGap(o, time.Hour) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(o *standin.Options) { o.MaxLatency = time.Millisecond })
			edgeURL, answered := r.edge(tt.hold)
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			var once sync.Once
			stop := func() {
				once.Do(func() { sendSTOP(t, client, edgeURL, number(1), "SM00000000000000000000000000000001") })
			}
			if !tt.during {
				stop()
			}
			decided := make(chan struct{}) // something came of the first look
			r.runSMS(func(o *sms.Options) {
				tt.change(o)
				look := o.Look
				o.Look = func(ctx context.Context, subject string) (contracts.Message, bool, error) {
					m, found, err := look(ctx, subject)
					stop() // stored after the look was answered, and answered itself before the look comes back
					select {
					case <-decided:
					default:
						close(decided)
					}
					return m, found, err
				}
			})
			r.queue(1)
			<-decided
			if tt.late {
				r.statuses(20*time.Second, 1, 2, contracts.SMSSent, contracts.SMSDelivered)
			} else {
				eventually(t, 20*time.Second, "the text is held back", func() bool { return r.text(1).Error == "held" })
			}
			at, ok := answered(number(1))
			if !ok {
				t.Fatal("the STOP was not answered")
			}
			late := 0
			for _, c := range r.twilio.Calls() {
				if c.Began.After(at) {
					late++
				}
			}
			if (late > 0) != tt.late {
				t.Errorf("%d calls began after the 200 to the STOP", late)
			}
		})
	}
}
