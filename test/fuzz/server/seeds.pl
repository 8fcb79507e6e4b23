# Seeds for a fuzz target, out of what is there already: the definitions and
# payloads in the regression tests, and the test data beside the checkout where
# there is any (the JSON Schema test suite, FHIR questionnaires).
#
#   perl seeds.pl TARGET FOLDER CHECKOUT DATA
#
# Writes files into FOLDER and says how many.
use strict;
use warnings;
use File::Find;
use JSON::PP;

my ($target, $folder, $checkout, $data) = @ARGV;
my $json = JSON::PP->new->utf8->canonical->allow_nonref->allow_bignum;
my $written = 0;

sub slurp
{
	my ($path) = @_;
	open my $in, '<:raw', $path or die "$path: $!\n";
	local $/;
	return scalar <$in>;
}

sub put
{
	my ($bytes) = @_;
	return if length($bytes) > 4096;
	open my $out, '>:raw', sprintf('%s/seed-%05d', $folder, $written++) or die "$folder: $!\n";
	print $out $bytes;
	close $out or die "$folder: $!\n";
}

# The SQL constants that are JSON objects, as they are written.
sub constants
{
	my @found;
	for my $file (sort glob "$checkout/test/sql/*.sql")
	{
		my $sql = slurp($file);
		while ($sql =~ /'((?:[^']|'')*)'/g)
		{
			(my $text = $1) =~ s/''/'/g;
			next unless $text =~ /^\s*\{/;
			my $value = eval { $json->decode($text) };
			push @found, [ $text, $value ] if ref $value eq 'HASH';
		}
	}
	return @found;
}

sub suite_cases
{
	my @cases;
	return unless -d "$data/json-schema";
	find({ no_chdir => 1, wanted => sub { push @cases, @{ $json->decode(slurp($_)) } if /\.json$/ } }, "$data/json-schema");
	return @cases;
}

sub questionnaire_cases
{
	my $file = "$data/fhir-questionnaire/cases.jsonl";
	return -r $file ? map { $json->decode($_) } split /\n/, slurp($file) : ();
}

if ($target eq 'decode')
{
	for my $found (constants())
	{
		next if $found->[1]{properties} || ($found->[1]{resourceType} // '') eq 'Questionnaire';
		put(($found->[1]{resourceType} ? 'd' : qw(a b c)[$written % 3]) . $found->[0]);
	}
	put('d' . $json->encode($_->{response})) for grep { $_->{response} } questionnaire_cases();
}
elsif ($target eq 'schema')
{
	put($_->[0] . "\f{}") for grep { $_->[1]{properties} } constants();
	for my $case (suite_cases())
	{
		for my $test (@{ $case->{tests} })
		{
			put($json->encode({ properties => { v => $case->{schema} } }) . "\f" . $json->encode({ v => $test->{data} }));
			put($json->encode({ %{ $case->{schema} }, properties => $case->{schema}{properties} // { v => {} } }) . "\f" .
				$json->encode($test->{data})) if ref $case->{schema} eq 'HASH' && ref $test->{data} eq 'HASH';
		}
	}
}
else
{
	put($_->[0] . "\f{}") for grep { ($_->[1]{resourceType} // '') =~ /^(?:Questionnaire|Bundle)$/ } constants();
	for my $case (questionnaire_cases())
	{
		put($json->encode($_) . "\f" . $json->encode($case->{response} // {})) for @{ $case->{questionnaires} };
	}
}
print "fuzz server run: $target: $written seeds\n";
