package identity

import (
	"slices"
	"strings"

	"leadpipe/contracts"
	"leadpipe/internal/state"
)

// A World is what keeps Stripe's data apart: "live" is the own account's live mode,
// "test" its test mode, "acct_1" and "acct_1/test" are those of a connected account. Of
// all that have been seen one counts: only its customers are linked to leads and texted.
//
// https://docs.stripe.com/testing-use-cases#compare-testing-environments
// https://docs.stripe.com/connect/webhooks
type World string

// Live is the own account's live mode.
const Live World = "live"

// WorldOf names the world of an event or a record.
func WorldOf(live bool, account string) World {
	switch {
	case account == "" && live:
		return Live
	case account == "":
		return "test"
	case live:
		return World(account)
	}
	return World(account + "/test")
}

// Of names a customer's world.
func Of(c contracts.Customer) World { return WorldOf(c.LiveMode == nil || *c.LiveMode, c.Account) }

// Before says whether a world counts before another: real money before tests, the own
// account before connected ones, these by their ids.
func (w World) Before(o World) bool {
	rank := func(w World) int {
		test := w == "test" || strings.HasSuffix(string(w), "/test")
		own := w == Live || w == "test"
		return 2*truth(test) + truth(!own)
	}
	if d := rank(w) - rank(o); d != 0 {
		return d < 0
	}
	return w < o
}

// counting keeps the customers of the world that counts. Where all are the own
// account's real ones, as nearly always, nothing else has to be read.
func counting(tx *state.Tx, known []knownCustomer) ([]knownCustomer, error) {
	best := Live
	if slices.ContainsFunc(known, func(k knownCustomer) bool { return Of(k.Customer) != Live }) {
		seen, _, err := state.Get[contracts.StripeAccounts](tx, contracts.KeyStripe)
		if err != nil {
			return nil, err
		}
		best = Of(known[0].Customer)
		for _, k := range known {
			if w := Of(k.Customer); w.Before(best) {
				best = w
			}
		}
		if len(seen.Worlds) > 0 && World(seen.Worlds[0]).Before(best) {
			best = World(seen.Worlds[0])
		}
	}
	return slices.DeleteFunc(known, func(k knownCustomer) bool { return Of(k.Customer) != best }), nil
}
