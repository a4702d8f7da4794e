package phone

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// What is taken as it stands is what the library makes of it.
func TestPlainNumberIsWhatTheLibraryReads(t *testing.T) {
	t.Parallel()
	for i := range 2000 {
		s := fmt.Sprintf("+33%d%02d%06d", 6+i%2, i/2%100, rand.IntN(1e6))
		if n, err := parse(s, "FR"); !plain(s) || err != nil || string(n) != s {
			t.Errorf("%s: plain %v, the library reads %q, %v", s, plain(s), n, err)
		}
	}
	for _, s := range []string{"", "+33", "+33512345678", "+3361234567", "+336123456789", "+3361234567a", "+33 612345678", "+3361234567\xb2", "0033612345678", "+32612345678", " +33612345678"} {
		if plain(s) {
			t.Errorf("%q is taken as it stands", s)
		}
	}
}
