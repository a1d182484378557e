/** Words for generated container names: things said of ships, sailors and weather, and people who measured the world. */
export const nameAdjectives: readonly string[] = (
  "able airy alert amber ample apt azure balmy bold brave breezy bright brisk buoyant calm candid careful cheerful " +
  "civil clear clever coastal cool copper coral cosy crisp curious daring dawn deep deft distant drifting dry eager " +
  "early earnest easy even fair faithful fast fearless fine firm fleet floating fluent fresh frosty gentle gifted " +
  "glad golden grand green happy hardy hazel hearty helpful honest humble idle ivory jaunty jolly jovial keen kind " +
  "lively lofty loyal lucid lucky lunar mellow merry mild misty modest moonlit neat nimble noble northern open " +
  "patient peaceful placid plucky polite prime proud quick quiet rapid ready restful rising robust rosy salty sandy " +
  "serene sharp shining silent silver simple sincere sleek smooth snug sober solar solid sound southern spirited " +
  "spry stable starry steady still stout sturdy sunlit sunny sure swift tall tawny tender tidal tidy tranquil true " +
  "trusty upbeat upright valiant vast vivid warm wakeful watchful western whole willing windy wise witty zesty"
).split(" ");

export const nameSurnames: readonly string[] = (
  "abel ampere anning archimedes avogadro babbage banneker bassi becquerel bell bernoulli bessel bohr boltzmann boole " +
  "bose boyle brahe burnell cannon cantor carnot carson cauchy cavendish celsius chandrasekhar chatelet church clausius " +
  "cook copernicus coulomb curie dalton darwin davy descartes diffie dijkstra dirac doppler edison einstein elion " +
  "engelbart erdos euclid euler faraday fermat fermi feynman fibonacci fleming foucault fourier franklin fresnel galilei " +
  "galois galvani gauss gibbs goodall grace halley hamilton harrison heisenberg helmholtz henry hero hertz herschel " +
  "hilbert hodgkin hooke hopper hubble humboldt hutton huygens hypatia joule kelvin kepler khayyam knuth kovalevsky " +
  "lagrange lamarr laplace lavoisier leavitt leibniz linnaeus lovelace lyell magellan marconi maury maxwell mayer " +
  "mcclintock meitner mendel mercator merian mitchell moore morse napier nansen newton nightingale nobel noether ohm " +
  "pascal pasteur payne perlman planck poincare ptolemy pythagoras ramanujan rayleigh ride riemann ritchie robinson " +
  "rosalind rubin rutherford sagan shannon snell somerville stokes tesla thales torvalds turing vesalius volta wallace " +
  "watt wegener wiles wing wright yalow yonath young zhang"
).split(" ");
