package chaos

import (
	"fmt"

	"leadpipe/contracts"
)

// The texts of a run. Each names its cause, so that a text which comes twice shows.
const (
	welcomeText = "Bienvenue {{.Name}}"
	failedText  = "Impaye {{.Attempt}} {{.URL}}"
	stoppedText = "Vous êtes désabonné. Plus de SMS."
)

// How often a text may come: never, perhaps, for certain. Never more than once.
type measure int

const (
	perhaps measure = iota + 1 // the order in which webhooks came decides
	certain
)

// texts are those that a person expects, by their words.
func (p *person) texts() map[string]measure {
	out := map[string]measure{}
	// Who has bought before the form was read needs no welcome, nor one who has said STOP.
	out["Bienvenue "+p.name] = certain
	if p.buys || p.stops {
		out["Bienvenue "+p.name] = perhaps
	}
	for n := range p.fails {
		// The last failure is told for certain, unless the payment came, or the end.
		words := fmt.Sprintf("Impaye %d https://pay.example.com/%s", n+1, p.invoice)
		out[words] = perhaps
		if n == p.fails-1 && !p.recovers && !p.churns && !p.stops {
			out[words] = certain
		}
	}
	if p.stops {
		out[stoppedText] = certain
	}
	return out
}

// standing is where a client stands, as its owner would say: churned when it has left,
// else what it owes.
func (p *person) standing() (status contracts.CustomerStatus, access contracts.Access, subscription string, failed int) {
	switch owes := p.fails > 0 && !p.recovers; {
	case p.churns:
		return contracts.CustomerChurned, contracts.AccessStopped, "canceled", -1
	case owes && p.fails >= 3:
		return contracts.CustomerSuspended, contracts.AccessSuspended, "past_due", p.fails
	case owes:
		return contracts.CustomerPastDue, contracts.AccessActive, "past_due", p.fails
	}
	return contracts.CustomerClient, contracts.AccessActive, "active", 0
}

// leadStatus is a lead's, given what became of its welcome.
func (p *person) leadStatus(welcomed bool) contracts.LeadStatus {
	switch {
	case p.stops:
		return contracts.LeadOptedOut
	case p.buys && p.churns:
		return contracts.LeadChurned
	case p.buys:
		return contracts.LeadClient
	case welcomed:
		return contracts.LeadContacted
	}
	return contracts.LeadNew
}
