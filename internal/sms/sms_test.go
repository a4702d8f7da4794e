package sms_test

import (
	"testing"
	"time"

	"leadpipe/contracts"
)

func TestWalk(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.runSMS()
	r.queue(span(0, 300)...)
	r.statuses(20*time.Second, 0, 300, contracts.SMSSent)
	for to, n := range r.sendsPer() {
		if n != 1 {
			t.Errorf("%s got %d texts", to, n)
		}
	}
	lead := get[contracts.Lead](r, contracts.KeyLead("1000"))
	if lead.Status != contracts.LeadContacted {
		t.Errorf("lead is %s", lead.Status)
	}
	r.valid()
}
